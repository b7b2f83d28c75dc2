"""What Prometheus and Grafana need to watch the product: rules with their tests, a scrape configuration, and dashboards."""
