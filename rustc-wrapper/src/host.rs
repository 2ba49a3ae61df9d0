//! What machine this is, as far as code that is made for it depends on it.

/// What the first processor of this machine is: maker, model and features.
///
/// # Errors
/// Why it cannot be told.
pub fn processor() -> Result<String, String> {
    let text = std::fs::read_to_string("/proc/cpuinfo").map_err(|error| error.to_string())?;
    let first = text.split("\n\n").next().unwrap_or_default();
    let telling = |line: &&str| {
        ["vendor_id", "cpu family", "model", "stepping", "flags", "Features", "CPU "]
            .iter()
            .any(|field| line.starts_with(field))
    };
    let lines: Vec<&str> = first.lines().filter(telling).collect();
    if lines.is_empty() {
        Err("/proc/cpuinfo says nothing".to_owned())
    } else {
        Ok(lines.join("\n"))
    }
}
