"""Checks of the launchers' command-line clients on this machine, without network or cloud."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from moe_jax.cli.checks import Finding, answer

_ADC = Path.home() / ".config" / "gcloud" / "application_default_credentials.json"
_GCLOUD = "https://cloud.google.com/sdk/docs/install says how"


def findings(launcher: str | None) -> Iterator[Finding]:
    """The checks of a launcher's clients; without one, those of all launchers, where a missing client is a warning."""
    bad = "fail" if launcher else "warn"
    if launcher in (None, "xpk"):
        yield xpk(bad)
        yield present(bad, "kubectl", "gcloud components install kubectl", "version", "--client")
        yield present(bad, "gke-gcloud-auth-plugin", "gcloud components install gke-gcloud-auth-plugin", "--version")
        yield present("warn", "docker", "needed to build the image: https://docs.docker.com/get-docker", "--version")
    if launcher in (None, "xpk", "queued-resources"):
        gcloud = present(bad, "gcloud", _GCLOUD, "--version")
        yield gcloud
        if gcloud.state == "ok":
            yield account(bad)
            yield project()
            yield credentials()
    if launcher == "xpk" and shutil.which("kubectl"):
        yield context()


def present(bad: str, program: str, remedy: str, *ask: str) -> Finding:
    """Whether a program is on the PATH and answers."""
    if shutil.which(program) is None:
        return Finding(bad, program, "is not installed here", remedy)
    said = answer(program, *ask)
    if said is None:
        return Finding(bad, program, f"does not answer {' '.join((program, *ask))}", remedy)
    return Finding("ok", program, said.splitlines()[0] if said else "answers")


def xpk(bad: str) -> Finding:
    """xpk, in its own environment, which the Makefile makes, else on the PATH."""
    from moe_jax.sweep.launchers import xpk as launcher

    return present(bad, launcher.client_path(), launcher.Xpk.how_to_get_it, "--help")


def account(bad: str) -> Finding:
    """Whether gcloud is signed in."""
    said = answer("gcloud", "config", "get-value", "account", "--quiet")
    name = said.splitlines()[-1] if said else ""
    if "@" not in name:
        return Finding(bad, "account", "gcloud is not signed in", "gcloud auth login")
    return Finding("ok", "account", name)


def project() -> Finding:
    """Whether gcloud has a default project."""
    said = answer("gcloud", "config", "get-value", "project", "--quiet")
    name = said.splitlines()[-1] if said else ""
    if not name or "unset" in name:
        return Finding("warn", "project", "gcloud has no default project: submit needs --project")
    return Finding("ok", "project", name)


def credentials() -> Finding:
    """The credentials with which JAX's and Python's clients open gs://; they do not use gcloud's."""
    path = Path(os.environ.get("GOOGLE_APPLICATION_CREDENTIALS") or _ADC)
    if path.exists():
        return Finding("ok", "credentials", f"{path}")
    return Finding(
        "warn", "credentials", f"none at {path}: gs:// will not open from here (on Google's hosts it does)",
        "gcloud auth application-default login",
    )  # fmt: skip


def context() -> Finding:
    """The cluster that kubectl talks to."""
    said = answer("kubectl", "config", "current-context")
    if said is None:
        return Finding("warn", "cluster", "kubectl has no cluster yet; xpk signs in to the one that submit names")
    return Finding("ok", "cluster", said.splitlines()[-1])
