"""The directory of mentors, coordinators and activity types: its files, their import, what the API reads of it, and forgetting people."""
