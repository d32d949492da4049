"""TLS, of HTTP and gRPC: HAProxy speaks it, with the certificate of `serving.tls`. Control plane only.

Ray's HAProxy configuration knows no TLS, and Serve's own ssl_certfile would make the replicas speak it to a HAProxy
that does not. So Serve's controller is given the files' names, and what starts HAProxy for it
(raypipe/cluster/haproxy_on_loopback.sh) puts them into its configuration.
"""

from __future__ import annotations

import ssl
from pathlib import Path

from raypipe.cluster.settings import haproxy_available
from raypipe.errors import ConfigurationError
from raypipe.project import Project

WHERE = "project.yaml: serving.tls"


def variables(project: Project) -> dict[str, str]:
    """What HAProxy finds the files by in its environment. Raises ConfigurationError as `certificate`."""
    files = certificate(project)
    return {} if files is None else {"RAYPIPE_TLS_CERTIFICATE": str(files[0]), "RAYPIPE_TLS_KEY": str(files[1])}


def certificate(project: Project) -> tuple[Path, Path] | None:
    """The certificate's file and its key's; None: plain HTTP.

    Raises ConfigurationError for files that are no certificate with its key, and where there is no HAProxy.
    """
    tls = project.settings.serving.tls
    if tls is None:
        return None
    if not haproxy_available():
        hint = "put a TLS proxy in front of the endpoint (docs/serving.md)"
        raise ConfigurationError("HAProxy's binary exists for x86-64 Linux only", where=WHERE, hint=hint)
    found, key = ((project.folder / name).resolve() for name in (tls.certificate, tls.key))
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(found, key, password="")
    except OSError as error:
        got = error.strerror or str(error)
        raise ConfigurationError("the certificate or its key cannot be used", where=WHERE, got=got) from None
    return found, key


def trust(project: Project) -> ssl.SSLContext | None:
    """Trust in the endpoint's own certificate and in no other, whatever host it names; None: plain HTTP."""
    files = certificate(project)
    if files is None:
        return None
    context = ssl.create_default_context(cafile=str(files[0]))
    context.check_hostname = False
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    return context
