//! The end of a certificate's validity, read from its DER (RFC 5280, section 4.1).

const SEQUENCE: u8 = 0x30;
const INTEGER: u8 = 0x02;
const VERSION: u8 = 0xa0;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;

/// `notAfter` of a certificate in seconds since 1970; `None` when it is not a well-formed certificate or ends
/// before 1970.
///
/// Only the fields on the way are read: version, serial number, signature algorithm, issuer, validity.
pub fn not_after_s(certificate: &[u8]) -> Option<u64> {
    let (certificate, _) = element(certificate, SEQUENCE)?;
    let (to_be_signed, _) = element(certificate, SEQUENCE)?;
    let rest = element(to_be_signed, VERSION).map_or(to_be_signed, |(_, rest)| rest);
    let (_serial_number, rest) = element(rest, INTEGER)?;
    let (_signature_algorithm, rest) = element(rest, SEQUENCE)?;
    let (_issuer, rest) = element(rest, SEQUENCE)?;
    let (validity, _) = element(rest, SEQUENCE)?;
    let (_, after_not_before) = time(validity)?;
    let (not_after, _) = time(after_not_before)?;
    Some(not_after)
}

/// The content of the element at the start of `input`, and what follows it. Lengths are definite (DER).
fn element(input: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (&found, rest) = input.split_first()?;
    if found != tag {
        return None;
    }
    let (&first, rest) = rest.split_first()?;
    let (length, rest) = match first {
        0..=0x7f => (usize::from(first), rest),
        0x81..=0x84 => {
            let (octets, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
            let length = octets.iter().try_fold(0_usize, |sum, octet| {
                sum.checked_mul(256).and_then(|sum| sum.checked_add(usize::from(*octet)))
            })?;
            (length, rest)
        }
        _ => return None,
    };
    rest.split_at_checked(length)
}

fn time(input: &[u8]) -> Option<(u64, &[u8])> {
    let (text, rest, year_digits) = element(input, UTC_TIME)
        .map(|(text, rest)| (text, rest, 2))
        .or_else(|| element(input, GENERALIZED_TIME).map(|(text, rest)| (text, rest, 4)))?;
    let digits = text.strip_suffix(b"Z")?;
    let (year, digits) = digits.split_at_checked(year_digits)?;
    let [month, day, hour, minute, second] = digits.as_chunks::<2>().0 else { return None };
    let mut year = decimal(year)?;
    if year_digits == 2 {
        // RFC 5280, section 4.1.2.5.1: two digits mean 1950 to 2049.
        year += if year < 50 { 2_000 } else { 1_900 };
    }
    let days = days_since_1970(year, decimal(month)?, decimal(day)?)?;
    let seconds = decimal(hour)? * 3_600 + decimal(minute)? * 60 + decimal(second)?;
    Some((days * 86_400 + seconds, rest))
}

fn decimal(digits: &[u8]) -> Option<u64> {
    digits
        .iter()
        .try_fold(0_u64, |sum, digit| digit.is_ascii_digit().then(|| sum * 10 + u64::from(digit - b'0')))
}

/// Days from 1 January 1970 to a date of the Gregorian calendar.
fn days_since_1970(year: u64, month: u64, day: u64) -> Option<u64> {
    if !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    // Counting years from March puts the leap day at a year's end; 719,468 days lie between 1 March 0 and 1970.
    let year = if month > 2 { year } else { year.checked_sub(1)? };
    let month_from_march = (month + 9) % 12;
    let day_of_year = (153 * month_from_march + 2) / 5 + day - 1;
    (year * 365 + year / 4 - year / 100 + year / 400 + day_of_year).checked_sub(719_468)
}
