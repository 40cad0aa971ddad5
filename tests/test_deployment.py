"""Deployment files, contrib/ and Containerfile: linters accept them, and they are consistent with the program.

The systemd checks of the units, and the command lines in contrib/, are in tests/cli/reference/test_contrib.py.
"""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import yaml

from cryostore.cli.verbs import cryo
from cryostore.options.declared import configuration_of
from cryostore.options.sources import merged, read_file
from cryostore.server.processes.supervisor import KILL_AFTER_SECONDS
from support.processes import load_balancer
from support.project import ROOT, shown

CONTRIB = ROOT / "contrib"
CONTAINERFILE = ROOT / "Containerfile"
COMPOSE_FILE = CONTRIB / "compose" / "compose.yaml"
HAPROXY_FILE = CONTRIB / "compose" / "haproxy.cfg"
NODE_UNIT = CONTRIB / "systemd" / "cryostore-node.service"
KUBERNETES = CONTRIB / "kubernetes"
YAML_FILES = sorted(CONTRIB.rglob("*.yaml"))
TOML_FILES = sorted(CONTRIB.rglob("*.toml"))
MANIFESTS = [path for path in sorted(KUBERNETES.glob("*.yaml")) if path.name != "kustomization.yaml"]
KUBERNETES_VERSION = "1.34"
YAMLLINT = (
    "{extends: default, rules: {line-length: {max: 140}, document-start: disable, braces: {max-spaces-inside: 1}}}"
)
EXPOSURE_MAX = 2.0
"""The exposure of a unit by `systemd-analyze security`, from 0 to 10."""


def linter(name, checks):
    """Return the program `name` of the linters' environment or this machine; skip the test if there is none."""
    places = [ROOT / ".venv-linters" / "bin", Path(sys.executable).parent, Path("/usr/sbin")]
    for place in places:
        if (place / name).exists():
            return place / name
    return shutil.which(name) or pytest.skip(f"{name} is not installed: {checks} was not checked")


def lint(*command):
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def load(path):
    """Return the only document of a YAML file."""
    return yaml.safe_load(path.read_text(encoding="utf-8"))


COMPOSE = load(COMPOSE_FILE)
SERVICES = COMPOSE["services"]
NODES = [name for name in SERVICES if name.startswith("node")]
KUSTOMIZATION = load(KUBERNETES / "kustomization.yaml")


def pod(kind):
    """Return the pod template of a Deployment or a Job."""
    (found,) = [
        document
        for path in MANIFESTS
        for document in yaml.safe_load_all(path.read_text(encoding="utf-8"))
        if document["kind"] == kind
    ]
    return found["spec"]["template"]["spec"]


def configuration(path):
    """Return the server configuration that a TOML file of contrib/ makes."""
    return configuration_of(merged(read_file(path)) | {"tls_cert": None, "tls_key": None, "insecure_listen": True})


# --- linters ----------------------------------------------------------------------------------------------------------


def test_yamllint():
    lint(linter("yamllint", "the form of the YAML files"), "--strict", "-d", YAMLLINT, *YAML_FILES)


def test_hadolint():
    lint(linter("hadolint", "Containerfile"), "--failure-threshold", "style", CONTAINERFILE)


def test_the_compose_file_is_valid():
    program = linter("check-jsonschema", "the schema of compose.yaml")
    lint(program, "--builtin-schema", "vendor.compose-spec", COMPOSE_FILE)


def test_the_manifests_fit_the_schemas_of_kubernetes():
    program = linter("kubernetes-validate", "the schemas of the manifests")
    lint(program, "--strict", "--kubernetes-version", KUBERNETES_VERSION, *MANIFESTS)


def test_haproxy_accepts_its_configuration():
    done = subprocess.run(
        [linter("haproxy", "haproxy.cfg"), "-c", "-f", HAPROXY_FILE], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    warnings = [line for line in done.stderr.splitlines() if "[WARNING]" in line]
    assert [
        line for line in warnings if "could not resolve address" not in line
    ] == []  # the names exist only in compose.yaml


def test_the_node_unit_has_a_low_exposure():
    program = linter("systemd-analyze", "the hardening of the unit of a node")
    threshold = f"--threshold={EXPOSURE_MAX * 10:.0f}"
    lint(program, "security", "--offline=true", "--no-pager", threshold, NODE_UNIT)


# --- command lines and configurations ---------------------------------------------------------------------------------


def command_lines():
    """Yield every `cryo` command line: the file and the arguments."""
    text = CONTAINERFILE.read_text(encoding="utf-8")
    (arguments,) = re.findall(r"^CMD (\[.*\])$", text, re.MULTILINE)
    assert 'ENTRYPOINT ["cryo"]' in text
    yield CONTAINERFILE, json.loads(arguments)
    for name in ("init", *NODES):
        yield COMPOSE_FILE, SERVICES[name]["command"]
    for kind in ("Deployment", "Job"):
        (container,) = pod(kind)["containers"]
        yield KUBERNETES, container["args"]
    (start,) = re.findall(r"^ExecStart=\S+/cryo (.*)$", NODE_UNIT.read_text(encoding="utf-8"), re.MULTILINE)
    yield NODE_UNIT, shlex.split(start)
    for path in (*YAML_FILES, *TOML_FILES, NODE_UNIT, CONTAINERFILE):  # command lines in comments too
        for line in re.findall(
            r"\b(?:cryo|init) ((?:init|key|serve|backup) [^\n#;`&>)]*)", path.read_text(encoding="utf-8")
        ):
            if line.split()[1].startswith(("-", "export", "create", "/")):
                yield path, shlex.split(line)


@pytest.mark.parametrize(("path", "arguments"), list(command_lines()), ids=lambda value: str(value)[-60:])
def test_every_command_line_is_valid(path, arguments):
    """The real parser accepts it; the files that it names exist only on the target machine."""
    command, rest = cryo, list(arguments)
    while hasattr(command, "get_command"):
        name = rest.pop(0)
        command = command.get_command(None, name)
        assert command is not None, f"{shown(path)}: there is no command {name}"
    command.make_context(name, rest)


def test_there_are_command_lines_of_every_kind():
    assert {(path.name, arguments[0]) for path, arguments in command_lines()} >= {
        ("Containerfile", "serve"),
        ("compose.yaml", "init"),
        ("compose.yaml", "serve"),
        ("compose.yaml", "key"),
        ("kubernetes", "init"),
        ("kubernetes", "serve"),
        ("kustomization.yaml", "init"),
        ("kustomization.yaml", "key"),
        ("cryostore-node.service", "serve"),
    }


@pytest.mark.parametrize("path", TOML_FILES, ids=shown)
def test_every_configuration_is_valid(path):
    """It has the URLs of catalog and blobs, no password, and addresses for the load balancer and for monitoring."""
    found = configuration(path)
    catalog, blobs = urlsplit(found.catalog), urlsplit(found.blobs)
    assert (found.data_dir, catalog.scheme, blobs.scheme) == (None, "postgresql", "s3")
    assert (catalog.username, catalog.password) == ("cryostore", None)
    assert (found.host, found.port, found.metrics_port) == ("0.0.0.0", 8734, 9464)
    assert found.keyring is not None


def test_containers_listen_on_reachable_addresses():
    """Other containers cannot reach a loopback address."""
    for folder in ("compose", "kubernetes"):
        values = merged(read_file(CONTRIB / folder / "cryostore.toml"))
        assert values["insecure_listen"] is True
        assert values["metrics"] == ("0.0.0.0", 9464)


# --- consistency ------------------------------------------------------------------------------------------------------


def seconds(text):
    (number,) = re.findall(r"^(\d+)s?$", str(text))
    return int(number)


def graces():
    """Yield the configuration and the stop timeout of each way to run a node."""
    unit = NODE_UNIT.read_text(encoding="utf-8")
    (timeout,) = re.findall(r"^TimeoutStopSec=(.*)$", unit, re.MULTILINE)
    yield "systemd", CONTRIB / "cryostore.toml", seconds(timeout)
    for name in NODES:
        yield name, COMPOSE_FILE.with_name("cryostore.toml"), seconds(SERVICES[name]["stop_grace_period"])
    yield "kubernetes", KUBERNETES / "cryostore.toml", pod("Deployment")["terminationGracePeriodSeconds"]


@pytest.mark.parametrize(("path", "grace_seconds"), [one[1:] for one in graces()], ids=[one[0] for one in graces()])
def test_the_stop_timeout_is_long_enough(path, grace_seconds):
    found = configuration(path)
    assert found.drain_seconds + found.shutdown_seconds_max + KILL_AFTER_SECONDS < grace_seconds


def test_a_node_drains_longer_than_the_load_balancer_needs_to_notice():
    text = HAPROXY_FILE.read_text(encoding="utf-8")
    ((every, fall),) = re.findall(r"check port 9464 inter (\d+)s fall (\d+)", text)
    (check,) = re.findall(r"timeout check (\d+)s", text)
    drain_seconds = configuration(COMPOSE_FILE.with_name("cryostore.toml")).drain_seconds
    assert int(every) * int(fall) + int(check) < drain_seconds


def test_the_load_balancer_knows_every_node():
    servers = re.findall(r"^    server (\w+) (\w+):8734$", HAPROXY_FILE.read_text(encoding="utf-8"), re.MULTILINE)
    assert [name for name, _ in servers] == [host for _, host in servers] == NODES
    assert len(NODES) == 3
    assert load_balancer.SHIPPED == HAPROXY_FILE


def test_probes_use_existing_paths():
    (container,) = pod("Deployment")["containers"]
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    found = configuration(KUBERNETES / "cryostore.toml")
    assert ports == {"api": found.port, "watch": found.metrics_port}
    asked = {probe: container[probe]["httpGet"] for probe in ("startupProbe", "livenessProbe", "readinessProbe")}
    assert {probe: (get["path"], get["port"]) for probe, get in asked.items()} == {
        "startupProbe": ("/-/live", "watch"),
        "livenessProbe": ("/-/live", "watch"),
        "readinessProbe": ("/-/ready", "watch"),
    }
    assert "http://127.0.0.1:9464/-/live" in CONTAINERFILE.read_text(encoding="utf-8")


def test_kustomize_names_every_manifest_and_pods_use_existing_objects():
    assert sorted(KUSTOMIZATION["resources"]) == [path.name for path in MANIFESTS if path.name != "secret.example.yaml"]
    examples = yaml.safe_load_all((KUBERNETES / "secret.example.yaml").read_text(encoding="utf-8"))
    secrets = {document["metadata"]["name"] for document in examples}
    maps = {generated["name"] for generated in KUSTOMIZATION["configMapGenerator"]}
    images = {image["name"] for image in KUSTOMIZATION["images"]}
    for kind in ("Deployment", "Job"):
        spec = pod(kind)
        (container,) = spec["containers"]
        volumes = {volume["name"]: volume for volume in spec["volumes"]}
        assert {mount["name"] for mount in container["volumeMounts"]} == set(volumes)
        assert {volumes["keyring"]["secret"]["secretName"], container["envFrom"][0]["secretRef"]["name"]} == secrets
        assert {volumes["configuration"]["configMap"]["name"]} == maps
        assert {container["image"]} == images


def test_nothing_runs_as_root():
    for kind in ("Deployment", "Job"):
        spec = pod(kind)
        (container,) = spec["containers"]
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
    user = pod("Deployment")["securityContext"]["runAsUser"]
    assert re.findall(r"^USER (.*)$", CONTAINERFILE.read_text(encoding="utf-8"), re.MULTILINE) == [f"{user}:{user}"]
    for name in ("init", *NODES):
        assert SERVICES[name]["read_only"] is True
        assert SERVICES[name]["cap_drop"] == ["ALL"]


def images():
    yield from re.findall(r"^FROM (\S+)", CONTAINERFILE.read_text(encoding="utf-8"), re.MULTILINE)
    yield from (service["image"] for service in SERVICES.values() if "build" not in service)


@pytest.mark.parametrize("image", sorted(set(images())))
def test_every_image_has_a_version(image):
    assert re.search(r":\d+(\.\d+)*", image)


def test_no_file_contains_a_secret():
    """No tracked file contains a secret or a default for one."""
    for path in (CONTAINERFILE, COMPOSE_FILE, *MANIFESTS, *TOML_FILES, NODE_UNIT):
        text = path.read_text(encoding="utf-8")
        values = re.findall(r"(?:PASSWORD|SECRET_ACCESS_KEY|ACCESS_KEY_ID)\s*[:=]\s*(\S*)", text)
        assert {value for value in values if not re.fullmatch(r'""|\.\.\.,?|\$\{\w+:\?see', value)} == set()
    example = (CONTRIB / "compose" / "env.example").read_text(encoding="utf-8")
    assert re.findall(r"^(\w+)=$", example, re.MULTILINE) == ["POSTGRES_PASSWORD", "S3_SECRET_ACCESS_KEY"]
    asked = set(re.findall(r"\$\{(\w+)", COMPOSE_FILE.read_text(encoding="utf-8")))
    assert asked == set(re.findall(r"^(\w+)=", example, re.MULTILINE))
