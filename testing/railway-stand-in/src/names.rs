//! Ids, secrets and times.

use jiff::Timestamp;

/// A random id of the form that the provider uses for everything, tokens included.
pub fn uuid() -> String {
    let bits = rand::random::<u128>();
    // SOURCE: RFC 9562, section 5.4: version 4 in bits 48..52, variant 10 in bits 64..66.
    let bits = (bits & !(0xF << 76)) | (0x4 << 76);
    let bits = (bits & !(0x3 << 62)) | (0x2 << 62);
    let hex = format!("{bits:032x}");
    let part = |from: usize, to: usize| hex.get(from..to).unwrap_or_default();
    format!(
        "{}-{}-{}-{}-{}",
        part(0, 8),
        part(8, 12),
        part(12, 16),
        part(16, 20),
        part(20, 32)
    )
}

/// The time as the API writes it.
pub fn now() -> String {
    Timestamp::now()
        .strftime("%Y-%m-%dT%H:%M:%S%.3fZ")
        .to_string()
}

/// A token as lists show it.
pub fn masked(secret: &str) -> String {
    format!("{}****", secret.get(..4).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    #[test]
    fn an_id_has_the_version_and_the_variant_of_the_standard() {
        for _ in 0..100 {
            let id = super::uuid();
            let marks = (id.as_bytes()[14], id.as_bytes()[19]);
            assert_eq!(id.len(), 36);
            assert_eq!(marks.0, b'4', "{id}");
            assert!(b"89ab".contains(&marks.1), "{id}");
        }
    }
}
