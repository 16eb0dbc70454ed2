//! What does this process take of its machine? As Prometheus' own client libraries name it, so that dashboards know it.

use std::fs::{read_dir, read_to_string};

use super::Gauge;

/// What Linux counts processor time in for whoever reads it, on every machine that we know.
const TICKS_PER_SECOND: f64 = 100.0;

/// Processor time, memory, files and the time of the start; nothing where the system does not say.
pub fn process() -> Vec<Gauge> {
    [cpu_seconds(), start_seconds()]
        .into_iter()
        .flatten()
        .chain(memory("VmRSS:", "process_resident_memory_bytes", "Memory that the process holds"))
        .chain(memory("VmSize:", "process_virtual_memory_bytes", "Memory that the process could address"))
        .chain(files())
        .collect()
}

/// The fields of `/proc/self/stat` from the third on: the name of the program before them may hold anything.
fn stat() -> Option<Vec<f64>> {
    let stat = read_to_string("/proc/self/stat").ok()?;
    let (_, rest) = stat.rsplit_once(')')?;
    Some(rest.split_whitespace().skip(1).map(|field| field.parse().unwrap_or_default()).collect())
}

fn cpu_seconds() -> Option<Gauge> {
    let stat = stat()?;
    // utime and stime, the 14th and 15th field.
    let seconds = (stat.get(10)? + stat.get(11)?) / TICKS_PER_SECOND;
    Some(Gauge::counter("process_cpu_seconds_total", "Processor time of the process, in seconds", seconds))
}

fn start_seconds() -> Option<Gauge> {
    let kernel = read_to_string("/proc/stat").ok()?;
    let booted: f64 = kernel.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()?;
    // starttime, the 22nd field, counts from there.
    let value = booted + stat()?.get(18)? / TICKS_PER_SECOND;
    let help = "When the process began, in seconds since 1970";
    Some(Gauge { value, ..Gauge::new("process_start_time_seconds", help, 0) })
}

/// What a process holds in memory, where the system says so.
pub fn resident_bytes(process: u32) -> Option<u64> {
    memory_of(&process.to_string(), "VmRSS:")
}

fn memory(key: &str, name: &'static str, help: &'static str) -> Option<Gauge> {
    Some(Gauge::new(name, help, memory_of("self", key)?))
}

fn memory_of(process: &str, key: &str) -> Option<u64> {
    let status = read_to_string(format!("/proc/{process}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(key))?;
    let kilobytes: u64 = line.trim().trim_end_matches(" kB").parse().ok()?;
    Some(kilobytes << 10)
}

fn files() -> Vec<Gauge> {
    let open = read_dir("/proc/self/fd").map(|files| files.count() as u64).ok();
    let limits = read_to_string("/proc/self/limits").unwrap_or_default();
    let most = limits.lines().find_map(|line| line.strip_prefix("Max open files"));
    let most = most.and_then(|line| line.split_whitespace().next()?.parse().ok());
    let gauge = |name, help| move |value| Gauge::new(name, help, value);
    let open = open.map(gauge("process_open_fds", "Files and sockets that the process has open"));
    open.into_iter().chain(most.map(gauge("process_max_fds", "As many may be open"))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_knows_itself() {
        let value = |name: &str| {
            let found = process().into_iter().find(|gauge| gauge.name == name);
            found.unwrap_or_else(|| panic!("{name} is missing")).value
        };
        let before = value("process_open_fds");
        let held = std::fs::File::open("/proc/self/stat").unwrap();
        assert!(value("process_open_fds") >= 1.0 + before.min(1.0) && value("process_max_fds") > before);
        drop(held);
        // A test that runs is younger than a day, and holds more than a megabyte.
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs_f64();
        let age = now - value("process_start_time_seconds");
        assert!((-2.0..86_400.0).contains(&age), "{age}");
        assert!(value("process_resident_memory_bytes") > 1e6);
        assert!(value("process_virtual_memory_bytes") >= value("process_resident_memory_bytes"));
        assert!(value("process_cpu_seconds_total") < 86_400.0);
    }
}
