"""Every body of the HTTP contract (docs/http.md): requests and responses, a module for each subject.

Requests forbid unknown fields and coerce no values. The models of the responses are for the documentation (OpenAPI) and for the tests, which
compare the API's responses with them. The API itself writes plain dicts, because 10,000 models for a batch of 10,000 items would be too slow.
"""
