//! Numbers with units, as people write them.

use std::time::Duration;

const BYTE_UNITS: [(&str, u64); 4] =
    [("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30), ("", 1)];

/// From the longest suffix, as `s` ends `ms` too.
const TIME_UNITS: [(&str, u64); 4] = [("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000)];

/// A size: a whole number of bytes, or of KiB, MiB or GiB when that follows it.
pub fn parse_bytes(text: &str) -> Result<u64, String> {
    parse(text, &BYTE_UNITS)
        .ok_or_else(|| "a size in bytes, as 65536, 64KiB, 256MiB or 1GiB".to_owned())
}

/// A time: a whole number and its unit, `ms`, `s`, `m` or `h`.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    parse(text, &TIME_UNITS)
        .map(Duration::from_millis)
        .ok_or_else(|| "a time with its unit, as 500ms, 10s, 5m or 1h".to_owned())
}

fn parse(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let (digits, factor) =
        units.iter().find_map(|(suffix, factor)| Some((text.strip_suffix(suffix)?, *factor)))?;
    let digits = digits.trim_end();
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    digits.parse::<u64>().ok()?.checked_mul(factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_bytes_or_have_a_binary_unit() {
        assert_eq!(parse_bytes("0"), Ok(0));
        assert_eq!(parse_bytes("4096"), Ok(4096));
        assert_eq!(parse_bytes("64KiB"), Ok(65_536));
        assert_eq!(parse_bytes("256 MiB"), Ok(268_435_456));
        assert_eq!(parse_bytes("1GiB"), Ok(1_073_741_824));
    }

    #[test]
    fn sizes_that_are_not_whole_or_too_large_are_refused() {
        for bad in ["", "MiB", "-1", "+1", "1.5GiB", "1MB", "x", "18446744073709551615KiB"] {
            assert!(parse_bytes(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn times_need_their_unit() {
        assert_eq!(parse_duration("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(parse_duration("10s"), Ok(Duration::from_secs(10)));
        assert_eq!(parse_duration("5m"), Ok(Duration::from_mins(5)));
        assert_eq!(parse_duration("24h"), Ok(Duration::from_hours(24)));
        for bad in ["", "10", "s", "-1s", "1.5s", "1d", "18446744073709551615h"] {
            assert!(parse_duration(bad).is_err(), "{bad}");
        }
    }
}
