//! Gateway API objects as a user would write them, a file each, in a folder of the test's own.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use tempfile::TempDir;

/// A folder of YAML that the control process watches.
pub(crate) struct Site {
    folder: TempDir,
}

/// What an EndpointSlice says about an endpoint.
#[derive(Clone, Copy)]
pub(crate) enum Endpoint {
    Ready(&'static str),
    /// Keeps its connections and gets no new ones.
    Draining(&'static str),
}

impl Site {
    /// The class and nothing else. The folder can be read by every user, as /etc/penstock can.
    pub(crate) fn new() -> Self {
        let folder = TempDir::with_prefix("penstock-site-").expect("a directory for the site");
        fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).expect("its mode");
        let site = Self { folder };
        site.write(
            "class",
            "apiVersion: gateway.networking.k8s.io/v1\nkind: GatewayClass\nmetadata: {name: penstock}\n\
             spec: {controllerName: penstock.dev/gateway-controller}\n",
        );
        site
    }

    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Puts a file in its place in one step, as editors and configuration tools do.
    pub(crate) fn write(&self, name: &str, yaml: &str) {
        let whole = self.path().join(format!("{name}.yaml"));
        let beside = self.path().join(format!(".{name}.new"));
        fs::write(&beside, yaml).expect("write beside");
        fs::rename(&beside, &whole).expect("rename into place");
    }

    pub(crate) fn remove(&self, name: &str) {
        fs::remove_file(self.path().join(format!("{name}.yaml"))).expect("remove");
    }

    /// A Gateway with one VIP; `listeners` are name, protocol and L4 port.
    pub(crate) fn gateway(
        &self,
        name: &str,
        vip: &str,
        mode: &str,
        listeners: &[(&str, &str, u16)],
    ) {
        self.governed(name, vip, &format!("mode: {mode}"), listeners);
    }

    /// A Gateway and its L4Policy; `policy` is what that says of listeners, as fields of YAML.
    pub(crate) fn governed(
        &self,
        name: &str,
        vip: &str,
        policy: &str,
        listeners: &[(&str, &str, u16)],
    ) {
        let mut yaml = format!(
            "apiVersion: penstock.dev/v1alpha1\nkind: L4Policy\nmetadata: {{name: {name}}}\nspec:\n  \
             targetRefs: [{{group: gateway.networking.k8s.io, kind: Gateway, name: {name}}}]\n  \
             listener: {{{policy}}}\n---\n\
             apiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\nmetadata: {{name: {name}}}\n\
             spec:\n  gatewayClassName: penstock\n  \
             addresses: [{{type: IPAddress, value: \"{vip}\"}}]\n  listeners:\n"
        );
        for (listener, protocol, port) in listeners {
            yaml += &format!("  - {{name: {listener}, protocol: {protocol}, port: {port}}}\n");
        }
        self.write(name, &yaml);
    }

    /// A TCPRoute or UDPRoute from one listener to Services with weights.
    pub(crate) fn route(
        &self,
        protocol: &str,
        (gateway, listener): (&str, &str),
        port: u16,
        services: &[(&str, u32)],
    ) {
        let name = format!("{gateway}-{listener}");
        let mut yaml = format!(
            "apiVersion: gateway.networking.k8s.io/v1\nkind: {protocol}Route\nmetadata: {{name: {name}}}\n\
             spec:\n  parentRefs: [{{name: {gateway}, sectionName: {listener}}}]\n  rules:\n  - backendRefs:\n"
        );
        for (service, weight) in services {
            yaml += &format!("    - {{name: {service}, port: {port}, weight: {weight}}}\n");
        }
        self.write(&format!("route-{name}"), &yaml);
    }

    /// A Service and the EndpointSlice that lists its backends, which are of one family.
    pub(crate) fn service(&self, name: &str, protocol: &str, port: u16, endpoints: &[Endpoint]) {
        let ipv6 = endpoints.iter().any(|endpoint| {
            let (Endpoint::Ready(address) | Endpoint::Draining(address)) = endpoint;
            address.contains(':')
        });
        let family = if ipv6 { "IPv6" } else { "IPv4" };
        let mut yaml = format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}}}\nspec:\n  ports:\n  \
             - {{name: main, protocol: {protocol}, port: {port}}}\n---\n\
             apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata:\n  name: {name}\n  \
             labels: {{kubernetes.io/service-name: {name}}}\naddressType: {family}\nports:\n\
             - {{name: main, protocol: {protocol}, port: {port}}}\n"
        );
        yaml += if endpoints.is_empty() { "endpoints: []\n" } else { "endpoints:\n" };
        for endpoint in endpoints {
            yaml += &match endpoint {
                Endpoint::Ready(address) => format!("- {{addresses: [\"{address}\"]}}\n"),
                Endpoint::Draining(address) => format!(
                    "- {{addresses: [\"{address}\"], conditions: \
                     {{ready: false, serving: true, terminating: true}}}}\n"
                ),
            };
        }
        self.write(&format!("service-{name}"), &yaml);
    }
}
