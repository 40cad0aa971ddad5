"""Valid and invalid requests that schemathesis makes from our OpenAPI document, against a real server."""

from __future__ import annotations

from urllib.parse import urlsplit

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from requests.auth import AuthBase
from schemathesis import GenerationMode
from schemathesis.specs.openapi import checks

from cryostore.core.digest import Payload
from cryostore.core.time import wall_clock
from cryostore.model import OPERATIONS
from cryostore.model.errors import ERRORS
from cryostore.model.operation import Api as ServedApi
from cryostore.wire.message import Request
from cryostore.wire.reference import openapi
from cryostore.wire.sigv4 import sign
from support.requests.belongings import Belongings
from support.requests.raw_http import WAIT_SECONDS_MAX
from support.requests.scrutiny import HEAD_TOO_LONG, check_answer

SCHEMA = schemathesis.openapi.from_dict(openapi.render())
OPERATION_BY_NAME = {
    one.definition.raw["operationId"]: one for one in (found.ok() for found in SCHEMA.get_all_operations())
}
CHECKS = [
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_headers_conformance,
    checks.response_schema_conformance,
]
# Errors that any operation may answer to an invalid request: signature, path, limits of HTTP.
ALWAYS = {"IllegalArgumentException", "InvalidParameterValueException", "MissingParameterValueException"}
ALWAYS |= {"InvalidRequestException", "UnknownOperationException", "InvalidSignatureException"}
# B.13: returned wherever they apply, also where the model of 2018 does not list them.
UNMODELLED = {"ResourceNotFoundException", "DataAlreadyExistsException", "ThrottlingException"}
# Without the shrinking phase: it takes minutes here, and a failure is printed as a request anyway.
EXAMPLES = max(8, settings.default.max_examples // 6)


class Signed(AuthBase):
    """Signs the request exactly as it is sent, for the API of the operation."""

    def __init__(self, credentials, service):
        self.credentials = credentials
        self.service = service

    def __call__(self, prepared):
        path, _, query = prepared.path_url.partition("?")
        body = prepared.body or b""
        data = body.encode() if isinstance(body, str) else bytes(body)
        request = Request(prepared.method, path, query, [("host", urlsplit(prepared.url).netloc)], Payload(data))
        signed = sign(request, self.credentials, region="local-1", service=self.service, now_ms=wall_clock())
        prepared.headers.update(signed.headers)
        return prepared


@pytest.fixture
def belongings(server, client):
    return Belongings(server.data_dir, client)


@pytest.fixture(scope="module")
def session():
    with requests.Session() as session:
        yield session


@pytest.mark.parametrize("mode", GenerationMode, ids=str)
@pytest.mark.parametrize("name", OPERATION_BY_NAME)
@settings(max_examples=EXAMPLES, phases=[Phase.generate], suppress_health_check=[*HealthCheck])
@given(data=st.data())
def test_every_answer_is_documented(server, belongings, session, name, mode, data):
    """Labels are generated, or those of existing resources."""
    case = data.draw(OPERATION_BY_NAME[name].as_strategy(generation_mode=mode))
    for label in case.path_parameters:
        if data.draw(st.booleans(), label=f"an existing {label}"):
            case.path_parameters[label] = data.draw(st.sampled_from(belongings.by_label[label]))
    declaration = OPERATIONS[name]
    auth = Signed(server.running.settings.credentials, declaration.api.value)
    response = case.call(
        base_url=server.running.url, session=session, auth=auth, timeout=WAIT_SECONDS_MAX, allow_redirects=False
    )
    headers = {key: values[-1] for key, values in response.headers.items()}
    error = check_answer(response.status_code, headers, response.content)
    if error is None:
        assert response.status_code == declaration.status
    else:
        assert error in {kind.__name__ for kind in declaration.errors} | ALWAYS | UNMODELLED
        in_control = declaration.api is ServedApi.BACKUP and ERRORS[error].status_control
        assert response.status_code in (in_control or ERRORS[error].status, HEAD_TOO_LONG)
    case.validate_response(response, checks=CHECKS)


def test_every_operation_is_requested():
    assert set(OPERATION_BY_NAME) == set(OPERATIONS)
