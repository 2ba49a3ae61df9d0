//! [`days`]: the one place that knows the calendar's way from a date to a number. Pure. Called by whoever reads a date:
//! of HTTP, of a certificate, of a command line.

/// Days since 1970 of a date in the Gregorian calendar (proleptic; Howard Hinnant, "chrono-compatible low-level date
/// algorithms"). Years are counted from March, so that the day that comes and goes is the last one. `month` is 1 to 12.
pub fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = if month > 2 { year } else { year - 1 };
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    year * 365 + year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400) + day_of_year
        - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_that_are_known() {
        assert_eq!([days(1970, 1, 1), days(1969, 12, 31), days(2000, 2, 29)], [0, -1, 11_016]);
        assert_eq!(days(2000, 3, 1) - days(2000, 2, 28), 2);
        assert_eq!(days(1900, 3, 1) - days(1900, 2, 28), 1, "no leap year");
    }
}
