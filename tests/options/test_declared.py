"""The declarations of options against the configuration that they set."""

from __future__ import annotations

from cryostore.core.limits import Limits
from cryostore.options.configuration import Configuration, ConnectionSettings
from cryostore.options.declared import OPTIONS, configuration_of
from cryostore.service.settings import Settings

COVERS = ("options/option.py",)


def test_every_field_of_the_configuration_is_set_by_one_option():
    """No field is forgotten, and no two options set the same field."""
    targets = [target for option in OPTIONS.values() for target in option.targets]
    assert len(targets) == len(set(targets))
    top = set(Configuration.__dataclass_fields__) - {"limits", "connection", "settings"}
    assert {target for target in targets if "." not in target} == top
    for name, part in (("limits", Limits), ("connection", ConnectionSettings), ("settings", Settings)):
        decided_elsewhere = {
            "account_id",  # by `cryo init`
            "region",
            "reserve_bytes",  # by Configuration.reserve_bytes
            "start_window_minutes_min",  # by the API
            "claim_lease_ms",  # by what background work needs
        }
        fields = set(part.__dataclass_fields__) - decided_elsewhere
        assert {target.partition(".")[2] for target in targets if target.startswith(f"{name}.")} == fields


def test_documented_defaults_are_the_real_ones():
    """Every default in the declaration of an option equals the default of its field."""
    values = {}
    for key, option in OPTIONS.items():
        if option.unsaid and key not in ("data_dir", "keyring", "workers", "metrics"):
            values[key] = option.kind.read(option.unsaid)
    assert configuration_of(values) == Configuration()
