//! Functions of mathematics that the models are written in.

pub(super) use libm::lgamma as ln_gamma;

/// The derivative of the logarithm of the gamma function, for `x` above 0: pushed up to 10 and taken from the asymptotic series
/// (Abramowitz and Stegun 6.3.5, 6.3.18).
pub(super) fn digamma(mut x: f64) -> f64 {
    let mut below = 0.0;
    while x < 10.0 {
        below -= 1.0 / x;
        x += 1.0;
    }
    let y = 1.0 / (x * x);
    let series =
        y * (1.0 / 12.0 - y * (1.0 / 120.0 - y * (1.0 / 252.0 - y * (1.0 / 240.0 - y / 132.0))));
    below + x.ln() - 0.5 / x - series
}

/// `ln(exp(a) + exp(b))`, and what share of the sum is the first.
pub(super) fn ln_sum(a: f64, b: f64) -> (f64, f64) {
    let most = a.max(b);
    if most == f64::NEG_INFINITY {
        return (most, 0.0);
    }
    let (a, b) = ((a - most).exp(), (b - most).exp());
    (most + (a + b).ln(), a / (a + b))
}

/// Gauss's hypergeometric function 2F1(a, b; c; z) for 0 <= z < 1, as its sign and the logarithm of its size.
///
/// The series is summed with its size taken out whenever it grows, so that no term leaves the range of numbers: that is where
/// spreadsheets answer #NUM! (Fader and Hardie, "Overcoming the BG/NBD model's #NUM! error problem", 2013).
pub(super) fn hypergeometric(a: f64, b: f64, c: f64, z: f64) -> (f64, f64) {
    const TERMS_MAX: u32 = 1_000_000;
    const LARGE: f64 = 1e200;
    // At zero and below it the series has no end where c is whole.
    let c = if c <= 0.0 && c.fract() == 0.0 { c + 1e-9 } else { c };
    let (mut term, mut sum, mut ln_scale) = (1.0_f64, 1.0_f64, 0.0_f64);
    for n in 0..TERMS_MAX {
        let j = f64::from(n);
        let ratio = (a + j) * (b + j) / ((c + j) * (j + 1.0)) * z;
        term *= ratio;
        sum += term;
        if sum.abs() > LARGE || term.abs() > LARGE {
            term /= LARGE;
            sum /= LARGE;
            ln_scale += LARGE.ln();
        }
        // What is left is less than the next term over (1 - ratio), once terms fall.
        if ratio.abs() < 1.0 && term.abs() <= 1e-17 * sum.abs() * (1.0 - ratio.abs()) {
            break;
        }
    }
    (sum.signum(), sum.abs().ln() + ln_scale)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_near(found: f64, wanted: f64) {
        assert!((found - wanted).abs() <= 1e-10 * wanted.abs().max(1.0), "{found} for {wanted}");
    }

    /// Values of DLMF 5.4 and 15.4, which have closed forms.
    #[test]
    fn closed_forms() {
        const EULER: f64 = 0.577_215_664_901_532_9;
        is_near(digamma(1.0), -EULER);
        is_near(digamma(0.5), -EULER - 2.0 * std::f64::consts::LN_2);
        is_near(digamma(30.0), (1..30).map(|n| 1.0 / f64::from(n)).sum::<f64>() - EULER);
        let value = |(sign, ln): (f64, f64)| sign * ln.exp();
        for z in [0.0, 0.1, 0.5, 0.9, 0.99] {
            // 2F1(1, 1; 2; z) = -ln(1 - z) / z, and 2F1(a, b; b; z) = (1 - z)^-a.
            let wanted = if z == 0.0 { 1.0 } else { -(1.0_f64 - z).ln() / z };
            is_near(value(hypergeometric(1.0, 1.0, 2.0, z)), wanted);
            is_near(hypergeometric(2.5, 3.5, 3.5, z).1, -2.5 * (1.0_f64 - z).ln());
        }
        // Far beyond the range of numbers: (1 - z)^-1000.
        is_near(hypergeometric(1000.0, 7.0, 7.0, 0.9).1, 1000.0 * std::f64::consts::LN_10);
        assert_eq!(hypergeometric(0.3, 0.4, -0.5, 0.95).0, -1.0);
    }

    #[test]
    fn sums_of_logarithms() {
        let (ln, share) = ln_sum(-1000.0, -1000.0 + 3f64.ln());
        is_near(ln, -1000.0 + 4f64.ln());
        is_near(share, 0.25);
    }
}
