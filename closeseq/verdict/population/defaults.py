"""Idle timeouts that products have by default. A number alone never proves a product: it only fits."""

from __future__ import annotations

from typing import NamedTuple


class IdleDefault(NamedTuple):
    """An idle timeout as it is where nobody has changed it."""

    seconds: int
    product: str
    setting: str  # how the product calls it
    source: str  # where its default is documented


IDLE_DEFAULTS = (
    IdleDefault(2, "gunicorn", "keepalive", "gunicorn, docs/source/settings.rst: keepalive"),
    IdleDefault(
        5, "Node.js 8 to 25", "server.keepAliveTimeout", "Node.js API, http: server.keepAliveTimeout"
    ),
    IdleDefault(5, "Apache httpd", "KeepAliveTimeout", "httpd.apache.org/docs/2.4/mod/core.html"),
    IdleDefault(15, "Apache httpd 2.0", "KeepAliveTimeout", "Red Hat Enterprise Linux 4 Reference Guide"),
    IdleDefault(
        20,
        "Tomcat",
        "connectionTimeout of its server.xml",
        "Tomcat, webapps/docs/config/http.xml: connectionTimeout",
    ),
    IdleDefault(60, "Tomcat", "connectionTimeout", "Tomcat, webapps/docs/config/http.xml: connectionTimeout"),
    IdleDefault(60, "AWS Classic Load Balancer", "idle timeout", "AWS, config-idle-timeout.html"),
    IdleDefault(65, "newer Node.js", "server.keepAliveTimeout", "Node.js, pull request 62782"),
    IdleDefault(
        75, "nginx", "keepalive_timeout", "nginx, src/http/ngx_http_core_module.c: keepalive_timeout"
    ),
    IdleDefault(90, "Go net/http", "Transport.IdleConnTimeout", "Go net/http/transport.go: DefaultTransport"),
    IdleDefault(130, "Kestrel", "KeepAliveTimeout", "learn.microsoft.com, KestrelServerLimits"),
    IdleDefault(350, "AWS Network Load Balancer", "idle timeout", "AWS, update-idle-timeout.html"),
)
