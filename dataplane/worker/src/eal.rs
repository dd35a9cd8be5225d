//! What EAL is told: which devices, which CPUs, which memory, and nothing of the rest of the box.

use std::fmt::Write as _;

use crate::config::{Config, PortConfig};

/// EAL's arguments, without the program's name.
///
/// * Lcore 0 is EAL's own thread, which we do not use; worker `i` is lcore `i + 1`.
/// * Only the configured devices are probed: a NIC that carries SSH is never touched.
/// * With hugepages, memory is anonymous (`--in-memory`): nothing is left of it after `kill -9`.
pub fn arguments(config: &Config) -> Vec<String> {
    let mut arguments: Vec<String> =
        ["--no-telemetry", "--file-prefix", "penstock", "-m"].map(String::from).into();
    arguments.push(config.memory.eal_mib.to_string());
    if config.memory.hugepages.is_some() {
        arguments.push("--in-memory".into());
    } else {
        arguments.extend(["--no-huge", "--no-shconf"].map(String::from));
    }
    arguments.extend(["--lcores".into(), lcores(config)]);
    if !config.ports.iter().any(is_pci) {
        arguments.push("--no-pci".into());
    }
    for port in &config.ports {
        let option = if is_pci(port) { "-a" } else { "--vdev" };
        arguments.extend([option.into(), port.device.clone()]);
    }
    arguments
}

/// The name by which EAL knows a port's device.
pub fn device_name(port: &PortConfig) -> &str {
    port.device.split(',').next().unwrap_or_default()
}

fn is_pci(port: &PortConfig) -> bool {
    device_name(port).contains(':')
}

fn lcores(config: &Config) -> String {
    let cores = &config.workers.cores;
    let all: Vec<String> = cores.iter().map(usize::to_string).collect();
    let mut lcores = format!("0@({})", all.join(","));
    for worker in 0..config.workers.count {
        let core = cores[worker % cores.len()];
        let _ = write!(lcores, ",{}@{core}", worker + 1); // writing to a String cannot fail
    }
    lcores
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(ports: &str) -> Config {
        let text =
            format!("{ports}\nworkers: {{ count: 2, cores: [0] }}\nmemory: {{ eal-mib: 64 }}");
        Config::parse("test.yaml", &text).unwrap()
    }

    #[test]
    fn two_workers_may_share_a_core_and_only_named_devices_are_probed() {
        let tap = config("ports: [{ name: a, device: 'net_tap0,iface=lan0', companion: pst0 }]");
        let expected = "--no-telemetry --file-prefix penstock -m 64 --no-huge --no-shconf \
                        --lcores 0@(0),1@0,2@0 --no-pci --vdev net_tap0,iface=lan0";
        assert_eq!(arguments(&tap).join(" "), expected);
        let nic = config("ports: [{ name: a, device: '0000:3b:02.0', companion: pst0 }]");
        assert!(arguments(&nic).join(" ").ends_with("-a 0000:3b:02.0"));
        assert_eq!(device_name(&tap.ports[0]), "net_tap0");
    }
}
