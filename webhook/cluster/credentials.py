"""Where a cluster's settings and credentials come from: a kubeconfig, or the pod's own account."""

from __future__ import annotations

import os
import re
import ssl
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import yaml
from kubernetes.config import ConfigException, load_incluster_config, load_kube_config

from webhook.cluster.errors import ClusterError

if TYPE_CHECKING:
    from kubernetes.client import Configuration

USUAL_KUBECONFIG = Path("~/.kube/config")
_IN_CLUSTER = "KUBERNETES_SERVICE_HOST"
_MOST_SHOWN = 500

Load = Callable[["Configuration"], "ssl.SSLContext | None"]
"""Puts settings into a configuration of the client; returns how to speak TLS, if at all."""

# What the client raises for settings that are not of the form it expects.
BROKEN = (
    ConfigException,
    yaml.YAMLError,
    OSError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
)


@dataclass(frozen=True, slots=True)
class Credentials:
    """Settings and credentials that can be read again and again.

    Attributes:
        source: Where they come from, in words.
    """

    source: str
    _load: Load

    def read(self, into: Configuration) -> ssl.SSLContext | None:
        """Read them; return how to speak TLS, None where the server speaks plain HTTP.

        Raises:
            ClusterError: They are missing or broken.
        """
        try:
            return self._load(into)
        except BROKEN as error:
            raise ClusterError(f"{self.source}: {reason(error)}") from error


def find(kubeconfig: Path | None = None, context: str | None = None) -> Credentials:
    """Find the cluster that is meant, in the order in which kubectl looks.

    Args:
        kubeconfig: A file; None for ``$KUBECONFIG`` or ``~/.kube/config``, and where there is
            neither, the service account of the pod that this runs in.
        context: A context of that file; None for its current one.

    Raises:
        ClusterError: There is no such place.
    """
    paths = _paths(kubeconfig)
    if paths:
        named = os.pathsep.join(map(str, paths))
        source = f"{named}, context {context}" if context else named
        return Credentials(source, lambda into: _from_kubeconfig(named, context, into))
    if context is not None:
        raise ClusterError(f"--context {context}: there is no kubeconfig; name one by --kubeconfig")
    if os.environ.get(_IN_CLUSTER):
        return Credentials("the pod's service account", _from_pod)
    raise ClusterError(
        "no cluster to ask: there is no kubeconfig ($KUBECONFIG, ~/.kube/config), and this is no "
        "pod; name one by --kubeconfig FILE, or give facts from files by --inventory PATH "
        "(`kubectl get nodes,vms,vmis,vmims,pods,kubevirt -A -o yaml` prints them)"
    )


def reason(error: BaseException) -> str:
    """Say on one line what is wrong, without the contents of a kubeconfig.

    The client quotes whole entries of a kubeconfig, keys and tokens included.
    """
    if isinstance(error, OSError) and error.strerror:
        where = f"{error.filename}: " if error.filename else ""
        return one_line(f"{where}{error.strerror.lower()}")
    said = str(error) or type(error).__name__
    return one_line(re.sub(r"/?[{\[].*", "…", said, flags=re.DOTALL))


def one_line(text: str) -> str:
    """Return a text from outside as it can be shown: short, printable, on one line."""
    words = "".join(c if c.isprintable() else "?" for c in " ".join(text.split()))
    return words if len(words) <= _MOST_SHOWN else words[:_MOST_SHOWN] + "…"


def _paths(given: Path | None) -> list[Path]:
    if given is not None:
        if not _is_file(given):
            raise ClusterError(f"--kubeconfig {given}: no such file")
        return [given.expanduser()]
    told = os.environ.get("KUBECONFIG", "")
    if told:
        # kubectl, too, passes over those that are not there.
        present = [Path(one).expanduser() for one in told.split(os.pathsep) if _is_file(Path(one))]
        if not present:
            raise ClusterError(f"KUBECONFIG={told}: no such file")
        return present
    return [USUAL_KUBECONFIG.expanduser()] if _is_file(USUAL_KUBECONFIG) else []


def _is_file(path: Path) -> bool:
    try:
        return str(path) not in ("", ".") and path.expanduser().is_file()
    except (OSError, ValueError, RuntimeError):
        # RuntimeError: there is no home folder to expand to.
        return False


def _from_kubeconfig(paths: str, context: str | None, into: Configuration) -> ssl.SSLContext | None:
    # The client writes keys that stand inside a kubeconfig into files, because Python's TLS reads
    # nothing else; they go as soon as they are read.
    with tempfile.TemporaryDirectory(prefix="migration-guard-") as folder:
        load_kube_config(  # type: ignore[no-untyped-call]  # the client's loaders have no types
            config_file=paths,
            context=context,
            client_configuration=into,
            persist_config=False,
            temp_file_path=folder,
        )
        return _tls(into)


def _from_pod(into: Configuration) -> ssl.SSLContext | None:
    load_incluster_config(client_configuration=into)  # type: ignore[no-untyped-call]  # likewise
    return _tls(into)


def _tls(configuration: Configuration) -> ssl.SSLContext | None:
    if not configuration.host.startswith("https://"):
        return None
    context = ssl.create_default_context(cafile=configuration.ssl_ca_cert)
    # Clusters' own authorities often lack the extensions that Python 3.13 asks for by default.
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    if not configuration.verify_ssl:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if configuration.cert_file:
        context.load_cert_chain(configuration.cert_file, configuration.key_file)
    return context
