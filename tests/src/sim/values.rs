//! Values that name who wrote them, so that a value that is read can be checked byte by byte and the history stays small.
//!
//! A value is `client.seq.bytes:` and then letters that follow from those numbers, up to the stated length.

use bytes::Bytes;

/// The name of a value: what a history holds in its place.
pub fn name_of(client: u64, seq: u64, bytes: u64) -> String {
    format!("{client}.{seq}.{bytes}")
}

/// The value of this name.
pub fn expand(name: &str) -> Bytes {
    let wanted = name.rsplit('.').next().and_then(|bytes| bytes.parse().ok()).unwrap_or(0);
    let mut value = Vec::with_capacity(wanted.max(name.len() + 1));
    value.extend_from_slice(name.as_bytes());
    value.push(b':');
    let mut state = name.bytes().fold(7_u64, |state, byte| mix(state ^ u64::from(byte)));
    while value.len() < wanted {
        state = mix(state);
        let letters = state.to_le_bytes().map(|byte| b'a' + byte % 26);
        let missing = (wanted - value.len()).min(letters.len());
        value.extend(letters.iter().take(missing));
    }
    Bytes::from(value)
}

/// The name of a value that was read, or what is wrong with it.
pub fn recognise(value: &[u8]) -> Result<String, String> {
    let end = value.iter().position(|byte| *byte == b':');
    let name = end.and_then(|end| value.get(..end)).and_then(|name| str::from_utf8(name).ok());
    let name = name.ok_or_else(|| format!("{} bytes that nobody wrote", value.len()))?;
    if expand(name) != value {
        return Err(format!("the value {name} with other bytes than were written"));
    }
    Ok(name.to_owned())
}

fn mix(state: u64) -> u64 {
    let state = state.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    state ^ (state >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn value_is_recognised_at_every_length_and_any_other_byte_is_seen() {
        for bytes in [0, 8, 9, 100, 16_384] {
            let name = name_of(3, 41, bytes);
            let value = expand(&name);
            assert_eq!(value.len(), (name.len() + 1).max(usize::try_from(bytes).unwrap()));
            assert_eq!(recognise(&value), Ok(name));
            let mut other = value.to_vec();
            *other.last_mut().unwrap() ^= 1;
            assert!(recognise(&other).is_err());
        }
    }
}
