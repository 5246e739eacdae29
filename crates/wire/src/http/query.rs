//! Query strings and forms.

/// Takes percent coding off, and `+` as a space where `plus` says so; `None` when it is cut or not UTF-8.
pub fn percent_decode(text: &str, plus: bool) -> Option<String> {
    let mut bytes = text.bytes();
    let mut decoded = Vec::with_capacity(text.len());
    while let Some(byte) = bytes.next() {
        decoded.push(match byte {
            b'%' => {
                let digit = |byte: Option<u8>| char::from(byte?).to_digit(16);
                let (high, low) = (digit(bytes.next())?, digit(bytes.next())?);
                u8::try_from(high.checked_mul(16)?.checked_add(low)?).ok()?
            }
            b'+' if plus => b' ',
            other => other,
        });
    }
    String::from_utf8(decoded).ok()
}

/// Splits `a=b&c=d`, decoded; `None` when something cannot be decoded.
///
/// # Source
/// <https://url.spec.whatwg.org/#urlencoded-parsing>
pub fn query_pairs(query: &str) -> Option<Vec<(String, String)>> {
    query
        .split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            Some((percent_decode(name, true)?, percent_decode(value, true)?))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_are_decoded_and_cut_ones_refused() {
        let pairs = query_pairs("query=mutation%20%7B+a+%7D&&x").unwrap();
        assert_eq!(pairs[0], ("query".to_owned(), "mutation { a }".to_owned()));
        assert_eq!(pairs[1], ("x".to_owned(), String::new()));
        for cut in ["a=%", "a=%4", "a=%zz", "a=%ff", "%"] {
            assert_eq!(query_pairs(cut), None, "{cut}");
        }
    }
}
