//! Medians and geometric means.

/// The median; of an even number, the mean of the two in the middle. `None` of nothing.
pub fn median(values: impl IntoIterator<Item = f64>) -> Option<f64> {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    let upper = *values.get(middle)?;
    Some(if values.len() % 2 == 1 { upper } else { (values[middle - 1] + upper) / 2.0 })
}

/// The geometric mean of positive numbers. `None` of nothing.
pub fn geomean(values: impl IntoIterator<Item = f64>) -> Option<f64> {
    let (sum, count) =
        values.into_iter().fold((0.0, 0_u32), |(sum, count), value| (sum + value.ln(), count + 1));
    (count > 0).then(|| (sum / f64::from(count)).exp())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_ignores_order_and_outliers() {
        assert_eq!(median([]), None);
        assert_eq!(median([3.0]), Some(3.0));
        assert_eq!(median([1e9, 1.0, 2.0]), Some(2.0));
        assert_eq!(median([4.0, 1.0, 2.0, 1e9]), Some(3.0));
    }

    #[test]
    fn the_geomean_of_reciprocals_is_one() {
        assert_eq!(geomean([]), None);
        assert!((geomean([2.0, 0.5]).unwrap() - 1.0).abs() < 1e-12);
        assert!((geomean([1.0, 10.0, 100.0]).unwrap() - 10.0).abs() < 1e-12);
    }
}
