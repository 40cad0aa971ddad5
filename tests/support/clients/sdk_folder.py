"""The data folder of `cryo sdk-model`, loaded into the botocore of this environment."""

from __future__ import annotations

import botocore.session
from botocore.config import Config

from cryostore.wire.reference import sdk_model


def write(folder, *, extensions=True):
    """Write the folder and return its path."""
    for name, data in sdk_model.render(extensions=extensions).items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return folder


def session(folder, access_key_id="AKIAEXAMPLE", secret="SECRET"):
    """Return a botocore session that knows `backupstorage`."""
    made = botocore.session.Session()
    made.set_credentials(access_key_id, secret)
    made.get_component("data_loader").search_paths.append(str(folder))
    return made


def client(folder, service="backupstorage", endpoint_url="http://cryo.example:9000"):
    """Return a botocore client of one of the two services. It never retries, so that a test sees each response."""
    config = Config(retries={"total_max_attempts": 1})
    return session(folder).create_client(service, region_name="local-1", endpoint_url=endpoint_url, config=config)
