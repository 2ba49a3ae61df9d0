//! Medians, extremes and ratios of pairs. Pure.

/// Measured values, in the order they came.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Series(Vec<f64>);

impl Series {
    /// Values; those that are no number are left out.
    pub fn new(values: impl IntoIterator<Item = f64>) -> Self {
        Self(values.into_iter().filter(|value| value.is_finite()).collect())
    }

    /// Adds a value.
    pub fn push(&mut self, value: f64) {
        if value.is_finite() {
            self.0.push(value);
        }
    }

    /// Adds values, if there are any.
    pub fn extend(&mut self, values: impl IntoIterator<Item = f64>) {
        values.into_iter().for_each(|value| self.push(value));
    }

    /// How many values there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The ratios of the values of two series that were measured in pairs.
    pub fn over(&self, other: &Self) -> Self {
        Self::new(self.0.iter().zip(&other.0).map(|(a, b)| a / b))
    }

    /// The value below which a share (0 to 1) of the values lies: the nearest rank, and the mean
    /// of the two in the middle for an even median. None without values.
    pub fn quantile(&self, share: f64) -> Option<f64> {
        let mut sorted = self.0.clone();
        sorted.sort_unstable_by(f64::total_cmp);
        let last = sorted.len().checked_sub(1)?;
        let place = share.clamp(0.0, 1.0) * last as f64;
        let (below, above) = (place.floor(), place.ceil());
        let value = |at: f64| sorted.get(at as usize).copied();
        match place - below {
            0.5 => Some((value(below)? + value(above)?) / 2.0),
            part if part < 0.5 => value(below),
            _ => value(above),
        }
    }

    /// The sum.
    pub fn sum(&self) -> f64 {
        self.0.iter().sum()
    }

    /// The median.
    pub fn median(&self) -> Option<f64> {
        self.quantile(0.5)
    }

    /// The least value.
    pub fn min(&self) -> Option<f64> {
        self.quantile(0.0)
    }

    /// The greatest value.
    pub fn max(&self) -> Option<f64> {
        self.quantile(1.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_of_odd_and_even_numbers_of_values() {
        assert_eq!(Series::new([3.0, 1.0, 2.0]).median(), Some(2.0));
        assert_eq!(Series::new([4.0, 1.0, 3.0, 2.0]).median(), Some(2.5));
        assert_eq!(Series::new([7.0]).median(), Some(7.0));
        assert_eq!(Series::default().median(), None);
    }

    #[test]
    fn extremes_and_quantiles() {
        let series = Series::new((1..=101).rev().map(f64::from));
        assert_eq!((series.min(), series.max()), (Some(1.0), Some(101.0)));
        assert_eq!(series.quantile(0.99), Some(100.0));
        assert_eq!(series.quantile(2.0), Some(101.0));
    }

    #[test]
    fn ratios_are_of_pairs_not_of_medians() {
        let a = Series::new([1.0, 10.0, 100.0]);
        let b = Series::new([2.0, 5.0, 400.0]);
        assert_eq!(a.over(&b), Series::new([0.5, 2.0, 0.25]));
        assert_eq!(a.over(&b).median(), Some(0.5));
    }

    #[test]
    fn what_is_no_number_is_left_out() {
        let zero = Series::new([0.0, 2.0]);
        assert_eq!(Series::new([1.0, 1.0]).over(&zero), Series::new([0.5]));
        assert_eq!(Series::new([f64::NAN]).len(), 0);
        assert!(Series::new([f64::INFINITY]).is_empty());
    }
}
