//! The least value of a smooth function of a few positive numbers.

/// Most steps of a search.
const STEPS_MAX: u32 = 300;

/// How far from its start, as a factor's logarithm, a number may go, some twenty thousand times: beyond, the function falls towards a
/// bound and has no bottom that anybody is looking for.
const FAR: f64 = 10.0;

/// A slope in the logarithm of a parameter below which the bottom is reached.
const FLAT: f64 = 1e-8;

/// Rows of which a search that is fit for all of them begins with a share.
const MANY: usize = 1 << 14;

/// What a search came to.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Minimum<const N: usize> {
    pub(super) at: [f64; N],
    pub(super) value: f64,
    pub(super) steps: u32,
    pub(super) is_bottom: bool,
    /// What was learned of the inverse of the second derivatives.
    inverse: [[f64; N]; N],
}

/// Goes down from `start` over the mean of many rows: `f` gives the value and its derivatives of every `n`th of them. Where there are
/// many, a share of them shows the way, and the last few steps are taken over all.
pub(super) fn minimize_over<const N: usize>(
    rows: usize,
    start: [f64; N],
    f: impl Fn(usize, &[f64; N]) -> (f64, [f64; N]),
) -> Minimum<N> {
    let every = rows / MANY;
    if every > 1 {
        let some = minimize(start, |numbers| f(every, numbers));
        if some.is_bottom {
            let mut all = search(some.at, some.inverse, |numbers| f(1, numbers));
            all.steps += some.steps;
            return all;
        }
    }
    minimize(start, |numbers| f(1, numbers))
}

/// Goes down from `start` by the method of Broyden, Fletcher, Goldfarb and Shanno, in the logarithms of the numbers, so that they stay
/// positive. `f` gives the value and its derivative by each number. The same function gives the same steps: there is no chance in it.
fn minimize<const N: usize>(
    start: [f64; N],
    f: impl Fn(&[f64; N]) -> (f64, [f64; N]),
) -> Minimum<N> {
    search(start, identity(), f)
}

fn search<const N: usize>(
    start: [f64; N],
    mut inverse: [[f64; N]; N],
    f: impl Fn(&[f64; N]) -> (f64, [f64; N]),
) -> Minimum<N> {
    let by_logarithms = |ln: &[f64; N]| {
        let numbers = ln.map(f64::exp);
        let (value, by) = f(&numbers);
        let mut slope = [0.0; N];
        for i in 0..N {
            slope[i] = by[i] * numbers[i];
        }
        (value, slope)
    };
    let begun = start.map(f64::ln);
    let mut at = begun;
    let (mut value, mut slope) = by_logarithms(&at);
    let mut steps = 0;
    let mut is_bottom = false;
    while steps < STEPS_MAX {
        if slope.iter().all(|s| s.abs() < FLAT) {
            is_bottom = true;
            break;
        }
        steps += 1;
        let mut way = [0.0; N];
        for i in 0..N {
            way[i] = -(0..N).map(|j| inverse[i][j] * slope[j]).sum::<f64>();
        }
        let mut falls: f64 = (0..N).map(|i| way[i] * slope[i]).sum();
        if falls >= 0.0 || !falls.is_finite() {
            inverse = identity();
            way = slope.map(|s| -s);
            falls = -slope.iter().map(|s| s * s).sum::<f64>();
        }
        // What a step could still gain is less than numbers can tell apart.
        if -falls < 1e-13 * (1.0 + value.abs()) {
            is_bottom = true;
            break;
        }
        // No step leaves the place where the last one was of use: a factor of e^2 at most.
        let longest = way.iter().fold(0.0_f64, |most, w| most.max(w.abs()));
        let mut length = if longest > 2.0 { 2.0 / longest } else { 1.0 };
        let mut next = None;
        for _ in 0..60 {
            let mut there = at;
            for i in 0..N {
                there[i] += length * way[i];
            }
            let (value_there, slope_there) = by_logarithms(&there);
            if value_there.is_finite() && value_there <= value + 1e-4 * length * falls {
                next = Some((there, value_there, slope_there));
                break;
            }
            length /= 2.0;
        }
        let Some((there, value_there, slope_there)) = next else {
            // Numbers are not fine enough to go further down.
            is_bottom = slope.iter().all(|s| s.abs() < 1e-5);
            break;
        };
        let (mut moved, mut bent) = ([0.0; N], [0.0; N]);
        for i in 0..N {
            moved[i] = there[i] - at[i];
            bent[i] = slope_there[i] - slope[i];
        }
        update(&mut inverse, &moved, &bent);
        (at, value, slope) = (there, value_there, slope_there);
        if (0..N).any(|i| (at[i] - begun[i]).abs() > FAR) {
            break;
        }
    }
    Minimum { at: at.map(f64::exp), value, steps, is_bottom, inverse }
}

fn identity<const N: usize>() -> [[f64; N]; N] {
    let mut matrix = [[0.0; N]; N];
    for (i, row) in matrix.iter_mut().enumerate() {
        row[i] = 1.0;
    }
    matrix
}

/// Takes the bend of the last step into the inverse of the second derivatives.
fn update<const N: usize>(inverse: &mut [[f64; N]; N], moved: &[f64; N], bent: &[f64; N]) {
    let curvature: f64 = (0..N).map(|i| moved[i] * bent[i]).sum();
    if curvature <= 1e-300 {
        return;
    }
    let mut times_bent = [0.0; N];
    for i in 0..N {
        times_bent[i] = (0..N).map(|j| inverse[i][j] * bent[j]).sum();
    }
    let both: f64 = (0..N).map(|i| bent[i] * times_bent[i]).sum();
    let factor = (1.0 + both / curvature) / curvature;
    for i in 0..N {
        for j in 0..N {
            inverse[i][j] += factor * moved[i] * moved[j]
                - (times_bent[i] * moved[j] + moved[i] * times_bent[j]) / curvature;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rosenbrock's valley, whose bottom is at (1, 1).
    #[test]
    fn the_bottom_of_a_valley_is_found() {
        let found = minimize([0.2, 4.0], |&[x, y]| {
            let value = (1.0 - x).powi(2) + 100.0 * (y - x * x).powi(2);
            let by_x = -2.0 * (1.0 - x) - 400.0 * x * (y - x * x);
            (value, [by_x, 200.0 * (y - x * x)])
        });
        assert!(found.is_bottom && found.value < 1e-12, "{found:?}");
        assert!((found.at[0] - 1.0).abs() < 1e-6 && (found.at[1] - 1.0).abs() < 1e-6, "{found:?}");
    }

    #[test]
    fn a_slope_without_a_bottom_is_said_to_be_one() {
        let found = minimize([1.0], |&[x]| (1.0 / x, [-1.0 / (x * x)]));
        assert!(found.at[0] > 1e3);
        let never = minimize([1.0], |&[x]| (-x.ln(), [-1.0 / x]));
        assert!(!never.is_bottom);
    }
}
