//! Reading Kubernetes quantities (`50Gi`, `1500m`, `2e9`) as numbers.

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

/// Text that is no quantity, or one that cannot be a number of bytes.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is no size: write a number with a suffix, like 512Mi, 50Gi or 2Ti")]
pub struct QuantityError(String);

/// Kubernetes takes quantities below 2^63.
const LIMIT: f64 = 9_223_372_036_854_775_808.0;

const SUFFIXES: [(&str, f64); 15] = [
    ("Ki", 1024.0),
    ("Mi", 1_048_576.0),
    ("Gi", 1_073_741_824.0),
    ("Ti", 1_099_511_627_776.0),
    ("Pi", 1_125_899_906_842_624.0),
    ("Ei", 1_152_921_504_606_846_976.0),
    ("n", 1e-9),
    ("u", 1e-6),
    ("m", 1e-3),
    ("k", 1e3),
    ("M", 1e6),
    ("G", 1e9),
    ("T", 1e12),
    ("P", 1e15),
    ("E", 1e18),
];

/// The quantity as a number of bytes, rounded up.
///
/// # Errors
/// When the text is no quantity, is negative, or exceeds what Kubernetes takes (2^63 - 1).
pub fn bytes(quantity: &Quantity) -> Result<u64, QuantityError> {
    let text = quantity.0.trim();
    let refuse = || QuantityError(text.chars().take(64).collect());
    // Whole numbers of a binary unit stay exact beyond the 53 bits of a float.
    let (digits, scale) = SUFFIXES
        .iter()
        .find_map(|(suffix, scale)| text.strip_suffix(suffix).map(|digits| (digits, *scale)))
        .unwrap_or((text, 1.0));
    let plain = digits.chars().all(|c| c.is_ascii_digit() || matches!(c, '.' | '+' | '-' | 'e' | 'E'));
    if digits.is_empty() || !plain {
        return Err(refuse());
    }
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    let whole_scale = if scale >= 1.0 { Some(scale as u64) } else { None };
    if let (Ok(number), Some(scale)) = (digits.parse::<u64>(), whole_scale) {
        return number.checked_mul(scale).filter(|bytes| i64::try_from(*bytes).is_ok()).ok_or_else(refuse);
    }
    let value = digits.parse::<f64>().map_err(|_| refuse())? * scale;
    if !(0.0..LIMIT).contains(&value) {
        return Err(refuse());
    }
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    let rounded = value.ceil() as u64;
    Ok(rounded)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

    use super::bytes;

    #[test]
    fn reads_sizes() {
        for (text, expected) in [
            ("50Gi", 53_687_091_200),
            ("1.5Gi", 1_610_612_736),
            ("1G", 1_000_000_000),
            ("2e9", 2_000_000_000),
            ("1024", 1024),
            ("1500m", 2),
            ("7Ei", 8_070_450_532_247_928_832),
            ("0", 0),
        ] {
            assert_eq!(bytes(&Quantity(text.to_owned())), Ok(expected), "{text}");
        }
    }

    #[test]
    fn refuses_what_is_no_size() {
        for text in ["", "Gi", "5 Gi", "-1Gi", "8Ei", "1e99", "NaN", "inf", "0x10", "five"] {
            assert!(bytes(&Quantity(text.to_owned())).is_err(), "{text}");
        }
    }
}
