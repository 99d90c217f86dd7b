//! The order in which sessions that end together come out.

/// Bits of an end that are put in order at once, and how many sessions are few.
const DIGIT: u32 = 11;
const FEW: usize = 256;

/// Puts ends and slots in order, given that slots are: by counting, from the lowest bits of ends on, where these lie near
/// each other.
pub(super) fn sort(due: &mut Vec<(i64, u32)>) {
    let ends = || due.iter().map(|(end, _)| *end);
    let (Some(first), Some(last)) = (ends().min(), ends().max()) else { return };
    let bits = u64::BITS - last.abs_diff(first).leading_zeros();
    if due.len() < FEW || bits > 3 * DIGIT {
        return due.sort_unstable();
    }
    let mut sorted = vec![(0, 0); due.len()];
    for shift in (0..bits).step_by(DIGIT as usize) {
        let digit = |end: i64| (end.abs_diff(first) >> shift) as usize & ((1 << DIGIT) - 1);
        let mut places = [0u32; 1 << DIGIT];
        due.iter().for_each(|(end, _)| places[digit(*end)] += 1);
        let mut begin = 0;
        places.iter_mut().for_each(|place| begin += std::mem::replace(place, begin));
        for session in due.iter() {
            let place = &mut places[digit(session.0)];
            sorted[*place as usize] = *session;
            *place += 1;
        }
        std::mem::swap(due, &mut sorted);
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::sort;

    proptest! {
        #[test]
        fn ends_are_put_in_order(ends in prop_oneof![
            vec(-9i64..9, 0..600), vec(0i64..5_000_000, 0..600), vec(any::<i64>(), 0..600),
        ]) {
            let mut due: Vec<(i64, u32)> = ends.into_iter().zip(0..).collect();
            let mut expected = due.clone();
            expected.sort_unstable();
            sort(&mut due);
            prop_assert_eq!(due, expected);
        }
    }
}
