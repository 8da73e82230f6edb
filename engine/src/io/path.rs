//! Which names an operation may use: relative to the data directory, at most one directory part.

use std::io;

const NAME_BYTES_MAX: usize = 255;

/// Accepts `name` and `directory/name`; anything else is [`io::ErrorKind::InvalidInput`].
pub(super) fn check_file(path: &str) -> io::Result<()> {
    let well_formed = match path.split_once('/') {
        Some((dir, name)) => is_name(dir) && is_name(name),
        None => is_name(path),
    };
    if well_formed { Ok(()) } else { Err(refuse(path)) }
}

/// Accepts `directory` and "", the data directory itself.
pub(super) fn check_dir(path: &str) -> io::Result<()> {
    if path.is_empty() || is_name(path) { Ok(()) } else { Err(refuse(path)) }
}

fn is_name(part: &str) -> bool {
    !matches!(part, "" | "." | "..")
        && part.len() <= NAME_BYTES_MAX
        && !part.bytes().any(|byte| byte == b'/' || byte == 0)
}

fn refuse(path: &str) -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidInput,
        format!("{path:?} is not a name inside the data directory; use `name` or `directory/name`"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_cannot_leave_the_data_directory() {
        for good in ["META", "seg/00000001.seg"] {
            check_file(good).unwrap();
        }
        for bad in ["", "/", "/etc/passwd", "..", "../x", "a/..", "a/b/c", "a//b", "a/", "nul\0"] {
            let error = check_file(bad).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "{bad:?}");
        }
        check_dir("").unwrap();
        check_dir("seg").unwrap();
        check_dir("seg/deeper").unwrap_err();
    }
}
