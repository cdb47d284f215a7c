"""The TLS settings of the admission port."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING

from webhook.serving.errors import StartError

if TYPE_CHECKING:
    from webhook.serving.certificates import CertificateFiles


def server_context(files: CertificateFiles) -> ssl.SSLContext:
    """Return the context with which the server answers: TLS 1.3 and HTTP/1.1 only.

    The API server speaks TLS 1.3, and never HTTP/2 to a webhook (``NextProtos`` in
    apiserver/pkg/util/webhook/client.go).

    Raises:
        StartError: The certificate or the key cannot be used.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.set_alpn_protocols(["http/1.1"])
    try:
        context.load_cert_chain(files.certificate, files.key)
    except OSError as error:
        # ssl.SSLError is an OSError too, for instance for a key too short to be allowed.
        reason = getattr(error, "reason", None) or error.strerror
        raise StartError(
            f"cannot use the certificate {files.certificate} with {files.key}: {reason}"
        ) from error
    return context
