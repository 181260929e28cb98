"""Every answer of the lease API is as its OpenAPI document says, whatever is sent: what it allows, and what it does not.

schemathesis takes a second of a processor to be imported, and as long to prepare its cases: both is done by the process that
runs these tests, and not by each that collects, as its plugin for pytest would have it.
"""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from devkit.generate import openapi
from tests.library.service import CLAIMABLE, Service, serving

DOCUMENT = json.loads(json.dumps(openapi.document()))
OPERATIONS = [
    f"{method.upper()} {path}" for path, item in DOCUMENT["paths"].items() for method in item if method != "parameters"
]


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service without a token; afterwards no client has got more than any client may have."""
    with serving(tmp_path_factory.mktemp("leases")) as service:
        yield service
        claims = [claim for record in service.records().values() for claim in record.claims]
        for claim in claims:
            assert (claim.selector.names, claim.selector.images, claim.projects) == ((), (), ())
            assert all(label.startswith(CLAIMABLE[0].rstrip("*")) for label in claim.selector.labels)


@pytest.mark.parametrize("label", OPERATIONS)
def test_every_answer_is_as_the_document_says(label: str, service: Service) -> None:
    import schemathesis
    from schemathesis.checks import load_all_checks
    from schemathesis.generation.feedback import FeedbackSources
    from schemathesis.pytest._test_builder import build_operation_test
    from schemathesis.specs.openapi.checks import negative_data_rejection, positive_data_acceptance

    # What is refused is more than a schema can say, and test_leaseapi.py's: an entry can match something, a text be printed.
    excluded = [positive_data_acceptance, negative_data_rejection]

    @settings(max_examples=40, suppress_health_check=list(HealthCheck))
    def is_as_the_document_says(case: Any) -> None:
        if isinstance(case.body, dict) and case.body.get("hold") is True:
            case.body["hold"] = False  # its answer has no end
        case.call_and_validate(base_url=service.url, timeout=60, excluded_checks=excluded)

    load_all_checks()
    schema = schemathesis.openapi.from_dict(DOCUMENT)
    method, path = label.split()
    operation = schema[path][method]
    build_operation_test(
        config=schema.config,
        operation=operation,
        test_func=is_as_the_document_says,
        given_kwargs={},
        feedback=FeedbackSources(),
    )()
