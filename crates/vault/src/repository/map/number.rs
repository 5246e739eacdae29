//! Numbers of variable length: LEB128.

/// Appends a number: seven bits a byte, the low ones first, the eighth says that more follow.
pub(crate) fn put_number(out: &mut Vec<u8>, mut number: u64) {
    loop {
        let [low, ..] = number.to_le_bytes();
        number >>= 7;
        if number == 0 {
            out.push(low & 0x7F);
            return;
        }
        out.push(low | 0x80);
    }
}

/// Numbers and bytes from the front of some bytes.
pub(crate) struct Numbers<'a>(pub(crate) &'a [u8]);

impl<'a> Numbers<'a> {
    /// Returns the next number; `None` when it is cut short, too large or longer than it need be.
    pub(crate) fn number(&mut self) -> Option<u64> {
        let mut number = 0_u64;
        for shift in (0..64).step_by(7) {
            let (byte, rest) = self.0.split_first()?;
            self.0 = rest;
            let bits = u64::from(byte & 0x7F);
            let placed = bits.checked_shl(shift)?;
            if placed >> shift != bits {
                return None;
            }
            number |= placed;
            if byte & 0x80 == 0 {
                return (*byte != 0 || shift == 0).then_some(number);
            }
        }
        None
    }

    /// Returns the next bytes, or `None` when there are fewer.
    pub(crate) fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_number_has_one_form_and_is_read_back(number: u64, small in 0_u64..300) {
            for number in [number, small, number >> 40, u64::MAX] {
                let mut bytes = Vec::new();
                put_number(&mut bytes, number);
                let mut fields = Numbers(&bytes);
                prop_assert_eq!(fields.number(), Some(number));
                prop_assert!(fields.0.is_empty());
                // The same number with more bytes than it needs is another form, and refused.
                if let Some(last) = bytes.last_mut() {
                    *last |= 0x80;
                }
                bytes.push(0);
                prop_assert_eq!(Numbers(&bytes).number(), None);
            }
        }
    }
}
