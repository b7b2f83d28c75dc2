"""The running API against its own OpenAPI document (schemathesis), and the document against the code."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import jsonschema_rs
import pytest
import schemathesis
from hypothesis import HealthCheck, given, seed, settings
from hypothesis.errors import Unsatisfiable
from hypothesis.stateful import run_state_machine_as_test
from pydantic import SecretStr
from schemathesis import GenerationMode
from schemathesis.specs.openapi.checks import negative_data_rejection, positive_data_acceptance

from api import openapi
from api.endpoints import exports
from api.http.problems import PROBLEMS
from api.routes import ROUTES
from orchestrator.batches.model import Role
from orchestrator.process.settings import Settings
from orchestrator.storage.database import create_database_engine
from orchestrator.storage.receipt_checkpoints import add_key
from schemas import examples
from schemas.api.problems import ProblemResponse
from schemas.paths import API_PATH
from tests.support.api_server import KEY, ApiServer, running_api
from tests.support.databases import fresh_database
from tests.support.no_tls import NO_TLS
from tests.support.pipeline import COORDINATOR, standard_directory
from tests.support.receipts import KEY as RECEIPTS_KEY
from tests.support.stack import Stack
from tests.support.waiting import PATIENCE_S
from tests.support.webhook_keys import WEBHOOK_KEYS

# Enough examples to reach each branch of the generators. Each run has the same requests, so a failure is reproducible.
EXAMPLES = settings(max_examples=15, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))


@pytest.fixture(scope="module")
def standard_api(infrastructure: Stack, template_database: str) -> Iterator[ApiServer]:
    """An API with the standard directory, for generated requests."""
    with fresh_database(infrastructure.postgres_url, template=template_database) as url:
        configured = Settings(database_url=SecretStr(url), jwt_hs256_key=SecretStr(KEY), webhook_keys=WEBHOOK_KEYS)
        engine = create_database_engine(configured.worker_url, configured, connections=1, application_name="test")
        standard_directory(engine)
        # As a notary that can sign leaves it.
        with engine.begin() as connection:
            add_key(connection, str(RECEIPTS_KEY.verifier))
        engine.dispose()
        with running_api(configured) as server:
            yield server


@pytest.fixture(scope="module")
def api_schema(standard_api: ApiServer) -> Any:
    """The document as the API serves it."""
    schema = schemathesis.openapi.from_url(f"{standard_api.url}/openapi.json")
    expected = schema.config.checks.negative_data_rejection.expected_statuses
    # An If-Match that is no list of tags matches nothing.
    schema.config.checks.negative_data_rejection.expected_statuses = [*expected, "412"]
    return schema


# A well-formed request can still name an unknown coordinator or organization, for which 422 and 403 are right.
NOT_MEANT = [positive_data_acceptance]

# These problems belong to no operation, so no operation documents them.
NOWHERE = {"not_found", "method_not_allowed", "bad_request"}

DOCUMENT = openapi.document()
# Clients generate code from these names, so a renamed class keeps its published name.
PUBLISHED_SCHEMAS = """
    ActivitiesResponse ActivityEventResponse ActivityGroupResponse ActivityResponse ActivitySummaryResponse OneActivityResponse SumResponse
    ActivityRevocation ActivityTypeResponse ActivityTypesResponse AttemptAnswer BatchAnswer BatchEvent BatchRevocation
    BatchWithItemsAnswer BatchesAnswer Cancellation CancelledAnswer CancellingUpdate ChapterResponse ChaptersResponse
    CoordinatorResponse CoordinatorsResponse FeaturesResponse FileItemResponse FileMistakeResponse FileRemarkResponse HealthAnswer HealthCheck
    ItemAnswer ItemCorrection ItemErrorAnswer ItemsSubmission KeptResponse LimitsResponse MeResponse MentorResponse
    MentorsResponse MentorsSubmission NewTemplate OneItemAnswer OrganizationResponse Pagination PlanDifferenceAnswer
    PeriodChangeResponse PeriodClosing PeriodHistoryResponse PeriodResponse
    CheckpointResponse ConsistencyResponse LeafResponse PeopleResponse PersonResponse ReceiptItemResponse ReceiptKeyResponse
    ReceiptKeysResponse ReceiptResponse
    ForgettingResponse MentorToForget
    DeliveriesResponse DeliveryResponse NewWebhook WebhookChangeResponse WebhookChangesResponse WebhookResponse
    WebhookWithSecretResponse WebhooksResponse
    PredictedCounts PredictedItem PreviewAnswer ProblemAnswer ProblemEntry ProgressAnswer ReadFileResponse Relabelling
    RetriedAnswer Retry RevokedActivityResponse RevokedResponse SharedActivity SubmissionItem TemplateChange TemplateResponse
    TemplatesResponse TicketAnswer UpdatedAnswer WarningResponse
"""

OPERATIONS = [(method, path) for path, methods in DOCUMENT["paths"].items() for method in methods]


def test_published_schemas_keep_their_names() -> None:
    schemas = DOCUMENT["components"]["schemas"]
    assert set(schemas) == set(PUBLISHED_SCHEMAS.split())
    assert {name: schema["title"] for name, schema in schemas.items()} == {name: name for name in schemas}


@pytest.mark.parametrize("mode", list(GenerationMode))
@pytest.mark.parametrize(("method", "path"), OPERATIONS)
def test_every_operation_conforms_to_the_document(
    api_schema: Any, standard_api: ApiServer, method: str, path: str, mode: GenerationMode
) -> None:
    headers = {"Authorization": f"Bearer {standard_api.token(Role.ADMIN, sub=COORDINATOR)}"}

    @EXAMPLES
    @given(case=api_schema[path][method].as_strategy(generation_mode=mode))
    def holds(case: Any) -> None:
        case.call_and_validate(headers=headers, excluded_checks=NOT_MEANT, timeout=PATIENCE_S)

    try:
        holds()
    except Unsatisfiable:
        assert mode is GenerationMode.NEGATIVE, "the operation has nothing that could be invalid"


def with_ids(path: str) -> str:
    """The path with some id for each of its parameters."""
    return re.sub(r"{\w+}", lambda _: str(uuid4()), path)


def queries(operation: dict[str, Any]) -> set[str]:
    return {each["name"] for each in operation.get("parameters", ()) if each["in"] == "query"}


def test_each_operation_reads_exactly_the_documented_query(refusing_api: ApiServer) -> None:
    """A parameter of another operation is refused like an unknown one."""
    read = {path: methods["get"] for path, methods in DOCUMENT["paths"].items() if "get" in methods and path.startswith(API_PATH)}
    every_name = set().union(*map(queries, read.values()))
    assert len(every_name) > 10
    with refusing_api.client() as client:
        for path, operation in read.items():
            # Each name once, with a value that is never valid. So a known parameter is refused, too, or its batch is not found.
            known = set()
            for name in every_name:
                answer = client.get(with_ids(path), params={name: "\x00"})
                errors = {(error["pointer"], error["code"]) for error in answer.json().get("errors") or ()}
                known |= set() if (f"/query/{name}", "unknown_field") in errors else {name}
            assert known == queries(operation), path


FEWEST_HISTORIES, MOST_HISTORIES = 12, 120


def test_every_link_leads_to_its_operation(api_schema: Any, standard_api: ApiServer) -> None:
    """Submits, and follows links to the operations on the new batch, in any order."""
    headers = {"Authorization": f"Bearer {standard_api.token(Role.ADMIN, sub=COORDINATOR)}"}
    linked: set[str] = set()

    # The event stream of an unfinished batch does not end (`following/test_streams.py` reads streams).
    class Machine(api_schema.exclude(operation_id="followBatch").as_state_machine()):  # type: ignore[misc]  # made at run time
        def get_call_kwargs(self, case: Any) -> dict[str, Any]:
            return {"headers": headers, "timeout": 30}

        def validate_response(self, response: Any, case: Any, additional_checks: Any = (), **named: Any) -> None:
            if response.status_code < 400:
                linked.add(case.operation.definition.raw["operationId"])
            # A random tag is not the batch's tag, so 412 is a refusal as well.
            refused = [negative_data_rejection] if response.status_code == 412 else []
            case.validate_response(response, excluded_checks=[*NOT_MEANT, *refused])

    # Each history is a run of its own. A response depends on the histories before it, and Hypothesis would call a run flaky whose examples
    # differ after the same beginning. The steps are random, so histories are run until every important link has been followed.
    of_a_batch = {route.name for route in ROUTES if "{batch_id}" in route.path}
    for number in range(MOST_HISTORIES):
        history = seed(number)(type("History", (Machine,), {}))
        run_state_machine_as_test(history, settings=settings(EXAMPLES, max_examples=1, stateful_step_count=15))
        # A random id returns 404, so a successful response is about a batch that a submission created.
        if number >= FEWEST_HISTORIES and len(linked & of_a_batch) >= 6:
            return
    raise AssertionError(f"the links reached only these operations: {linked}")


def test_the_link_from_a_batch_to_its_item_works(standard_api: ApiServer) -> None:
    """Generated histories rarely reach it."""
    path = "/api/v1/bulk-registrations"
    activity = {"activity_type": "visit", "activity_date": "2026-01-07", "duration_minutes": 60}
    with standard_api.client() as client:
        batch = client.get(client.post(path, json={"mentor_ids": ["mentor-99"], "activity": activity}).headers["Location"]).json()
        link = openapi.document()["paths"][f"{path}/{{batch_id}}"]["get"]["responses"]["200"]["links"]["getItem"]
        item_path = next(route.path for route in ROUTES if route.name == link["operationId"])
        for name, expression in link["parameters"].items():
            found = batch
            for step in expression.removeprefix("$response.body#/").split("/"):
                found = found[int(step)] if isinstance(found, list) else found[step]
            item_path = item_path.replace(f"{{{name}}}", found)
        answer = client.get(item_path)
    assert (answer.status_code, answer.json()["mentor_id"]) == (200, "mentor-99")


@pytest.mark.parametrize(("method", "path"), [found for found in OPERATIONS if found[1] not in ("/healthz", "/readyz")])
def test_every_operation_refuses_a_bad_token(standard_api: ApiServer, method: str, path: str) -> None:
    url = standard_api.url + with_ids(path)
    for token in (None, "x"):
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        answer = httpx.request(method, url, headers=headers, timeout=PATIENCE_S, verify=NO_TLS)
        assert (answer.status_code, answer.headers["WWW-Authenticate"][:6]) == (401, "Bearer")


def test_document_and_page_are_served_without_a_token(standard_api: ApiServer) -> None:
    answer = httpx.get(f"{standard_api.url}/openapi.json", timeout=PATIENCE_S)
    assert answer.json() == openapi.document()
    page = httpx.get(f"{standard_api.url}/docs", timeout=PATIENCE_S)
    assert page.headers["Content-Type"] == "text/html; charset=utf-8"
    for address in re.findall(r"(?:src|href)='?([^' >]+)", page.text):
        # Every file that the page loads comes from this server.
        assert address == "data:," or httpx.get(f"{standard_api.url}{address}", timeout=PATIENCE_S).status_code == 200
    policy = dict(part.split(" ", 1) for part in page.headers["Content-Security-Policy"].split("; "))
    assert (policy["default-src"], policy["script-src"], policy["connect-src"]) == ("'none'", "'self'", "'self'")
    metrics = httpx.get(f"{standard_api.url}/metrics", timeout=PATIENCE_S)
    assert 'bulkreg_api_request_seconds_count{method="GET",route="/docs",status="200"}' in metrics.text


def test_every_body_has_an_example_of_its_schema() -> None:
    validators = {}
    for where, content_type, content in contents():
        given = [DOCUMENT["components"]["examples"][name]["value"] for name in content.get("examples", {})]
        assert given or content["example"], f"{where} has no example"
        for example in given:
            schema = content["schema"] | {"components": {"schemas": DOCUMENT["components"]["schemas"]}}
            key = json.dumps(content["schema"])
            if key not in validators:
                validators[key] = jsonschema_rs.Draft202012Validator(schema, validate_formats=True)
            validators[key].validate(example)
        assert given or content_type not in ("application/json", "application/problem+json")


def contents() -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Each body of the document: its place, its content type, and its description."""
    for path, methods in DOCUMENT["paths"].items():
        for method, operation in methods.items():
            for what, body in [("body", operation.get("requestBody", {})), *operation["responses"].items()]:
                for content_type, content in body.get("content", {}).items():
                    yield f"{method} {path} {what}", content_type, content


def test_examples_are_complete_and_have_only_fields_of_the_models() -> None:
    for model, example in examples.EXAMPLES.items():
        model.model_validate_json(json.dumps(example), extra="forbid")
    for code in PROBLEMS:
        ProblemResponse.model_validate_json(json.dumps(documented(code)), extra="forbid")
    # What some problems have in addition to their title.
    assert {code for code in PROBLEMS if "errors" in documented(code)} >= {"invalid_request", "coordinator_unknown"}
    assert documented("plan_changed")["differences"]
    header, row = examples.TEXTS["downloadCsv"].splitlines()
    # The example leaves out the byte order mark, which is for programs.
    assert f"{header}\r\n".encode("utf-8-sig") == exports.CSV.header(False)
    assert len(row.split(",")) == len(header.split(","))


def documented(code: str) -> dict[str, Any]:
    """The example with this name, such as a problem's code."""
    example: dict[str, Any] = DOCUMENT["components"]["examples"][code]["value"]
    return example


def test_the_examples_are_those_of_the_http_page() -> None:
    """tests/end_to_end/test_docs.py runs the page's examples."""
    page = (Path(__file__).parents[2] / "docs" / "http.md").read_text()
    shown = [json.loads(block) for block in re.findall(r"^```json\n(.*?)^```", page, re.DOTALL | re.MULTILINE)]
    given = [example["value"] for example in DOCUMENT["components"]["examples"].values()]
    without_words = [{name: value for name, value in example.items() if name != "detail"} for example in given]
    assert len(shown) >= 8
    for answer in shown:
        assert {name: value for name, value in answer.items() if name != "detail"} in without_words, answer


def test_every_problem_is_documented() -> None:
    named = {code for _, _, content in contents() for code in content.get("examples", {})}
    assert PROBLEMS.keys() - named == NOWHERE
