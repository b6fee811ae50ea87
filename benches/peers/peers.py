"""Those that are measured: how each is configured, and what a request to it needs."""

import shutil

from processes import Keytoll, KeytollFree, KeytollFull, Nginx, Peer, Upstream, demand, demand_keytoll  # noqa: F401


class HAProxy(Peer):
    def command(self):
        file = self.directory / "haproxy.cfg"
        file.write_text(f"""global
  nbthread 1
  maxconn 8000
defaults
  mode http
  timeout connect 3s
  timeout client 60s
  timeout server 60s
frontend clients
  bind 127.0.0.1:{self.port}
  default_backend api
backend api
  http-reuse always
  server one 127.0.0.1:{self.upstream_port}
""")
        return [shutil.which("haproxy") or "/usr/sbin/haproxy", "-db", "-f", file]


ENVOY_KEY_AUTH = """          - name: envoy.filters.http.api_key_auth
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.filters.http.api_key_auth.v3.ApiKeyAuth
              credentials: [{key: a-key-of-the-usual-length-of-41-characters, client: ada}]
              key_sources: [{header: X-API-Key}]
"""


class Envoy(Peer):
    checks_keys = False
    program = "envoy"

    def command(self):
        file = self.directory / "envoy.yaml"
        file.write_text(f"""static_resources:
  listeners:
  - address: {{socket_address: {{address: 127.0.0.1, port_value: {self.port}}}}}
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: clients
          route_config:
            virtual_hosts:
            - {{name: all, domains: ["*"], routes: [{{match: {{prefix: "/"}}, route: {{cluster: api}}}}]}}
          http_filters:
{ENVOY_KEY_AUTH if self.checks_keys else ""}          - name: envoy.filters.http.router
            typed_config: {{"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}
  clusters:
  - name: api
    type: STATIC
    load_assignment:
      cluster_name: api
      endpoints:
      - lb_endpoints:
        - endpoint: {{address: {{socket_address: {{address: 127.0.0.1, port_value: {self.upstream_port}}}}}}}
""")
        return [self.program, "--concurrency", "1", "--disable-hot-restart", "-l", "error", "-c", file]


class EnvoyWithKeys(Envoy):
    checks_keys = True
    headers = {"X-API-Key": "a-key-of-the-usual-length-of-41-characters"}
