//! Enough of a value to recognise it beside its record, and too little to use it.

/// A value of a type, masked: `138****8001`, `l***@qq.com`, `oX****9z`.
pub(super) fn masked(id_type: &str, cleaned: &str) -> String {
    let chars: Vec<char> = cleaned.chars().collect();
    let part = |from: usize, to: usize| chars[from..to].iter().collect::<String>();
    let n = chars.len();
    if id_type == "email"
        && let Some((name, domain)) = cleaned.split_once('@')
    {
        let first: String = name.chars().take(1).collect();
        return format!("{first}***@{domain}");
    }
    let is_phone = matches!(id_type, "phone" | "mobile");
    match n {
        // What is short would be told by its ends.
        0..=7 => "****".to_owned(),
        _ if is_phone => format!("{}****{}", part(0, 3), part(n - 4, n)),
        _ => format!("{}****{}", part(0, 2), part(n - 2, n)),
    }
}

#[cfg(test)]
mod tests {
    use super::masked;

    #[test]
    fn values_are_recognised_and_not_given_away() {
        assert_eq!(masked("phone", "13800138001"), "138****8001");
        assert_eq!(masked("email", "li@qq.com"), "l***@qq.com");
        assert_eq!(masked("open_id", "oXabcdefg9z"), "oX****9z");
        assert_eq!(masked("device", "d-1"), "****");
    }
}
