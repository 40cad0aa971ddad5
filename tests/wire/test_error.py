"""Errors: one form for every client, and decoded to the same class."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cryostore.core.digest import Payload
from cryostore.model.errors import (
    ERRORS,
    AlreadyExistsException,
    DataAlreadyExistsException,
    IllegalArgumentException,
    InvalidRequestException,
    JobStateConflictException,
    ModelError,
    ResourceNotFoundException,
    ServiceUnavailableException,
    ThrottlingException,
)
from cryostore.model.operation import Api
from cryostore.wire.error import UnmodelledError, decode, encode
from cryostore.wire.message import Response

APIS = [*Api, None]


@pytest.mark.parametrize("name", ERRORS)
@pytest.mark.parametrize("api", APIS)
def test_every_error_is_decoded_to_its_class(name, api):
    error = ERRORS[name]("what is wrong: é")
    again = decode(encode(error, api, "R"))
    assert (type(again), again.message, again.members()) == (type(error), error.message, error.members())


@pytest.mark.parametrize(
    "error",
    [
        DataAlreadyExistsException("m", checksum="c", checksum_algorithm="SUMMARY"),
        JobStateConflictException("m", state="ABORTING"),
        AlreadyExistsException("m", creator_request_id="x", arn="arn:aws:a"),
        InvalidRequestException("m", type="t", context="c"),
    ],
)
def test_members_of_an_error_are_decoded(error):
    again = decode(encode(error, Api.BACKUP, "R"))
    assert again.members() == error.members() != {}


def test_an_error_has_the_form_that_every_client_understands():
    response = encode(DataAlreadyExistsException("m", checksum="c"), Api.BACKUP_STORAGE, "R-1")
    assert response.status == 400
    assert response.headers == [
        ("content-type", "application/json"),
        ("x-amzn-errortype", "DataAlreadyExistsException"),
        ("x-amzn-requestid", "R-1"),
    ]
    assert json.loads(response.body.data) == {
        "__type": "DataAlreadyExistsException",
        "Code": "DataAlreadyExistsException",
        "Message": "m",
        "message": "m",
        "Checksum": "c",
    }


@pytest.mark.parametrize(
    ("error", "data_plane", "control_plane"),
    [
        (ResourceNotFoundException("m"), 404, 400),
        (ThrottlingException("m"), 429, 400),
        (ServiceUnavailableException("m"), 503, 500),
        (IllegalArgumentException("m"), 400, 400),
    ],
)
def test_the_status_is_that_of_the_api(error, data_plane, control_plane):
    assert encode(error, Api.BACKUP_STORAGE, "R").status == data_plane
    assert encode(error, None, "R").status == data_plane
    assert encode(error, Api.BACKUP, "R").status == control_plane


def test_a_message_with_a_lone_surrogate_is_encoded():
    response = encode(IllegalArgumentException("\ud800"), None, "R")
    assert json.loads(response.body.data)["Message"] == "?"


@pytest.mark.parametrize(
    ("headers", "body"),
    [
        ([("X-Amzn-ErrorType", "ThrottlingException")], b""),
        ([("x-amzn-errortype", "ThrottlingException:http://internal/")], b'{"Code":"ERROR_9101"}'),
        ([("x-amzn-errortype", "com.amazon#ThrottlingException")], b""),
        ([], b'{"Code":"ThrottlingException","__type":"x"}'),
        ([], b'{"__type":"com.amazon.coral#ThrottlingException"}'),
    ],
)
def test_the_name_is_read_from_the_header_then_the_body(headers, body):
    assert isinstance(decode(Response(400, headers, Payload(body))), ThrottlingException)


@pytest.mark.parametrize(
    ("body", "code", "message"),
    [
        (b"<html>502</html>", "502", "the server answered 502"),
        (b"", "502", "the server answered 502"),
        (b"[]", "502", "the server answered 502"),
        (b"[" * 100_000, "502", "the server answered 502"),
        (b'{"Code": 5, "message": "m"}', "502", "m"),
        (b'{"Code":"SomethingNewException","Message":"m"}', "SomethingNewException", "m"),
    ],
)
def test_an_unmodelled_error_keeps_its_code(body, code, message):
    error = decode(Response(502, [], Payload(body)))
    assert isinstance(error, UnmodelledError)
    assert (error.code, error.message, error.status_received) == (code, message, 502)


@given(st.integers(300, 599), st.binary(max_size=60))
def test_any_answer_without_success_decodes_to_an_error(status, body):
    assert isinstance(decode(Response(status, [], Payload(body))), ModelError)
