//! Functions of real numbers, the same to the last bit on every machine.
//!
//! A C library picks its `exp` or `sin` by the processor, and what it picks rounds otherwise now and then: a training
//! set that was made on one machine would not be what another serves. These come from the crate `pxfm`, and are
//! *correctly rounded*: of each value there is one nearest float64, and that is it, however it is computed. Roots and
//! the four operations are so by IEEE 754.

use std::sync::{Arc, LazyLock};

use arrow::array::{ArrayRef, ArrowPrimitiveType, AsArray, PrimitiveArray};
use arrow::compute::binary;
use arrow::datatypes::{DataType, Float32Type, Float64Type};
use datafusion_common::tree_node::TreeNode;
use datafusion_common::{Result, internal_err};
use datafusion_expr::{
    ColumnarValue, Expr, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, TypeSignature, Volatility,
};
use num_bigint::BigUint;
use sha2::{Digest, Sha256};

use super::operators::over_columns;

/// What is computed of one or two numbers.
#[derive(Clone, Copy)]
enum Step {
    One(fn(f64) -> f64),
    Two(fn(f64, f64) -> f64),
    /// Of a number alone to base 10, and else to the base that stands before it.
    Logarithm,
}

impl Step {
    fn of_two(self, x: f64, y: f64) -> f64 {
        match self {
            Step::One(step) => step(y),
            Step::Two(step) => step(x, y),
            Step::Logarithm => logarithm(x, y),
        }
    }
}

/// Every function whose bits a C library would decide, by name; and `sqrt`, which DataFusion refuses below zero.
const FUNCTIONS: [(&str, Step); 22] = [
    ("acos", Step::One(pxfm::f_acos)),
    ("acosh", Step::One(pxfm::f_acosh)),
    ("asin", Step::One(pxfm::f_asin)),
    ("asinh", Step::One(pxfm::f_asinh)),
    ("atan", Step::One(pxfm::f_atan)),
    // This and `sinh` forget the sign of a zero.
    ("atan2", Step::Two(|y, x| pxfm::f_atan2(y, x).copysign(y))),
    ("atanh", Step::One(pxfm::f_atanh)),
    ("cbrt", Step::One(pxfm::f_cbrt)),
    ("cos", Step::One(pxfm::f_cos)),
    ("cosh", Step::One(pxfm::f_cosh)),
    ("cot", Step::One(pxfm::f_cot)),
    ("exp", Step::One(pxfm::f_exp)),
    ("ln", Step::One(pxfm::f_log)),
    ("log", Step::Logarithm),
    ("log10", Step::One(pxfm::f_log10)),
    ("log2", Step::One(pxfm::f_log2)),
    (POWER, Step::Two(power)),
    ("sin", Step::One(pxfm::f_sin)),
    ("sinh", Step::One(|x| if x == 0.0 { x } else { pxfm::f_sinh(x) })),
    ("sqrt", Step::One(f64::sqrt)),
    ("tan", Step::One(pxfm::f_tan)),
    ("tanh", Step::One(pxfm::f_tanh)),
];

pub(crate) use pxfm::{f_exp as exp, f_log as ln};

const POWER: &str = "power";

/// The logarithm of `x`. Of powers of 2 and 10 to their own base it is exact, which a quotient is not.
fn logarithm(base: f64, x: f64) -> f64 {
    match base {
        2.0 => pxfm::f_log2(x),
        10.0 => pxfm::f_log10(x),
        _ => pxfm::f_log(x) / pxfm::f_log(base),
    }
}

/// `x` to the power of `y`. To the power of 0, and of 1 to any, it is 1 even of a NaN, as IEEE 754 has it.
fn power(x: f64, y: f64) -> f64 {
    match y {
        0.0 => 1.0,
        // Of one operation the result is the nearest there is.
        1.0 => x,
        2.0 => x * x,
        -1.0 => 1.0 / x,
        _ if x == 1.0 => 1.0,
        // Steps of pxfm's own that overflow on the way, or round twice.
        -2.0 if x.is_finite() && x.abs() >= LARGE => inverse_square(x.abs()),
        -0.5 if x.is_finite() && x > 0.0 => inverse_root(x),
        _ => pxfm::f_pow(x, y),
    }
}

/// 2^511: its square is the greatest power of two but one.
const LARGE: f64 = 6.703903964971299e153;

/// A positive number as a whole one and a power of two.
fn parts(x: f64) -> (u64, i64) {
    let (bits, exponent) = (x.to_bits() & ((1 << 52) - 1), (x.to_bits() >> 52) as i64);
    if exponent == 0 { (bits, -1074) } else { (bits | 1 << 52, exponent - 1075) }
}

/// 1 / √x of a positive number: the quotient, or the number next to it. Between two numbers the middle decides, of
/// which the square times x is more or less than 1.
fn inverse_root(x: f64) -> f64 {
    let (whole, exponent) = parts(x);
    let is_below = |middle: (u64, i64)| {
        let square = BigUint::from(middle.0).pow(2) * whole;
        // Neither can be a power of two that is 1: the middle has one bit more than a number, and is odd.
        square > BigUint::from(1_u8) << (-2 * middle.1 - exponent).unsigned_abs()
    };
    let above = |y: f64| {
        let (whole, exponent) = parts(y);
        (2 * whole + 1, exponent - 1)
    };
    let mut root = 1.0 / x.sqrt();
    while !is_below(above(root)) {
        root = root.next_up();
    }
    while is_below(above(root.next_down())) {
        root = root.next_down();
    }
    root
}

/// 1 / x² of a large number, which is less than the least normal one: as a multiple of the least number there is.
fn inverse_square(x: f64) -> f64 {
    let (whole, exponent) = parts(x);
    // In halves of it: 2 · 2^1074 / (whole² · 2^(2 · exponent)).
    let Ok(shift) = u64::try_from(1075 - 2 * exponent) else { return 0.0 };
    let square = BigUint::from(whole).pow(2);
    let (halves, rest) = ((BigUint::from(1_u8) << shift) / &square, (BigUint::from(1_u8) << shift) % &square);
    let halves = u64::try_from(halves).unwrap_or(u64::MAX);
    // To the even one in the middle, which is met by powers of two alone.
    let is_middle = halves % 2 == 1 && rest == BigUint::ZERO;
    f64::from_bits(halves / 2 + if is_middle { halves / 2 % 2 } else { halves % 2 })
}

/// All of them, as functions of SQL.
pub(super) fn functions() -> impl Iterator<Item = Arc<ScalarUDF>> {
    (0..FUNCTIONS.len()).map(|place| Arc::new(ScalarUDF::from(Function::new(place))))
}

/// Whether `expression` calls one.
pub(super) fn is_called_in(expression: &Expr) -> bool {
    let called = expression
        .exists(|node| Ok(matches!(node, Expr::ScalarFunction(call) if call.func.inner().is::<Function>())));
    called.is_ok_and(|called| called)
}

/// What these functions say at fixed points, as 16 hexadecimal digits: a build or a machine whose values differ in a
/// single bit has another fingerprint.
pub fn fingerprint() -> &'static str {
    static FINGERPRINT: LazyLock<String> = LazyLock::new(|| {
        let mut digest = Sha256::new();
        for (name, step) in FUNCTIONS {
            digest.update(name);
            let points = (0..64).map(|point| 1e-3 * 1.31_f64.powi(point));
            for x in points.flat_map(|x| [x, -x]) {
                let value = step.of_two(x.abs(), 1.75 - x);
                // Which bits a NaN has is the processor's affair.
                digest.update(if value.is_nan() { f64::NAN } else { value }.to_be_bytes());
            }
        }
        digest.finalize()[..8].iter().map(|byte| format!("{byte:02x}")).collect()
    });
    &FINGERPRINT
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Function {
    /// In [`FUNCTIONS`].
    place: usize,
    signature: Signature,
    aliases: Vec<String>,
}

impl Function {
    fn new(place: usize) -> Function {
        let (name, step) = FUNCTIONS[place];
        let floats = || vec![DataType::Float64, DataType::Float32];
        let signature = match step {
            Step::One(_) => TypeSignature::Uniform(1, floats()),
            Step::Two(_) if name == POWER => TypeSignature::Uniform(2, vec![DataType::Float64]),
            Step::Two(_) => TypeSignature::Uniform(2, floats()),
            Step::Logarithm => TypeSignature::OneOf(vec![
                TypeSignature::Uniform(1, floats()),
                TypeSignature::Uniform(2, floats()),
            ]),
        };
        let aliases = if name == POWER { vec!["pow".to_owned()] } else { Vec::new() };
        Function { place, signature: Signature::new(signature, Volatility::Immutable), aliases }
    }

    fn step(&self) -> Step {
        FUNCTIONS[self.place].1
    }
}

impl ScalarUDFImpl for Function {
    fn name(&self) -> &str {
        FUNCTIONS[self.place].0
    }

    fn aliases(&self) -> &[String] {
        &self.aliases
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, arguments: &[DataType]) -> Result<DataType> {
        Ok(arguments[0].clone())
    }

    fn invoke_with_args(&self, arguments: ScalarFunctionArgs) -> Result<ColumnarValue> {
        over_columns(&arguments, |columns, _| match columns[0].data_type() {
            DataType::Float32 => computed::<Float32Type>(self.step(), columns),
            _ => computed::<Float64Type>(self.step(), columns),
        })
    }
}

/// A float of either width. The nearest float32 of a float64 that is good to its last bit is good to its own.
trait Narrow {
    fn nearest(x: f64) -> Self;
}

impl Narrow for f32 {
    fn nearest(x: f64) -> f32 {
        x as f32
    }
}

impl Narrow for f64 {
    fn nearest(x: f64) -> f64 {
        x
    }
}

/// The values for one column or two, null where one of them is.
fn computed<T>(step: Step, columns: &[ArrayRef]) -> Result<ArrayRef>
where
    T: ArrowPrimitiveType,
    T::Native: Into<f64> + Narrow,
{
    let narrowed = T::Native::nearest;
    let values: PrimitiveArray<T> = match (step, columns) {
        (Step::One(step), [x, ..]) => x.as_primitive::<T>().unary(|x| narrowed(step(x.into()))),
        (Step::Logarithm, [x]) => x.as_primitive::<T>().unary(|x| narrowed(pxfm::f_log10(x.into()))),
        (step, [x, y, ..]) => binary(x.as_primitive::<T>(), y.as_primitive::<T>(), |x, y| {
            narrowed(step.of_two(x.into(), y.into()))
        })?,
        (_, _) => return internal_err!("a function of real numbers without its arguments"),
    };
    Ok(Arc::new(values))
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;

    /// Other bits are other features: then heads are materialized anew, and training sets made anew. Whoever changes
    /// this says so to those who upgrade.
    #[test]
    fn the_bits_stay_the_same() {
        expect!["46de9ec99dec5ff9"].assert_eq(fingerprint());
    }

    /// Whatever IEEE 754 and C say of zeros, infinities and what is no number.
    #[test]
    fn at_the_edges_they_say_what_others_say() {
        type Function = fn(f64) -> f64;
        // The standard library squares what it is given.
        fn far(x: f64) -> f64 {
            (x.abs().ln() + std::f64::consts::LN_2).copysign(x)
        }
        let others: [(&str, Function); 20] = [
            ("acos", f64::acos),
            ("acosh", |x| if x > 1e150 { far(x) } else { x.acosh() }),
            ("asin", f64::asin),
            ("asinh", |x| if x.abs() > 1e150 { far(x) } else { x.asinh() }),
            ("atan", f64::atan),
            ("atanh", f64::atanh),
            ("cbrt", f64::cbrt),
            ("cos", f64::cos),
            ("cosh", f64::cosh),
            ("cot", |x| 1.0 / x.tan()),
            ("exp", f64::exp),
            ("ln", f64::ln),
            ("log", f64::log10),
            ("log10", f64::log10),
            ("log2", f64::log2),
            ("sin", f64::sin),
            ("sinh", f64::sinh),
            ("sqrt", f64::sqrt),
            ("tan", f64::tan),
            ("tanh", f64::tanh),
        ];
        let edges = [0.0, 1.0, 2.0, f64::MIN_POSITIVE, 5e-324, 1e300, f64::MAX, f64::INFINITY, f64::NAN];
        let edges = || edges.into_iter().flat_map(|x| [x, -x]);
        let same = |ours: f64, theirs: f64| {
            (ours.is_nan() && theirs.is_nan())
                || ours.to_bits() == theirs.to_bits()
                || (ours != 0.0 && (ours / theirs - 1.0).abs() < 1e-15)
        };
        for (name, theirs) in others {
            let step = FUNCTIONS.iter().find(|(known, _)| *known == name).unwrap().1;
            for x in edges() {
                let ours = step.of_two(10.0, x);
                assert!(same(ours, theirs(x)), "{name}({x:?}) is {ours:?}, not {:?}", theirs(x));
            }
        }
        for (x, y) in edges().flat_map(|x| edges().map(move |y| (x, y))) {
            let powers = (power(x, y), x.powf(y));
            assert!(same(powers.0, powers.1), "power({x:?}, {y:?}) is {:?}, not {:?}", powers.0, powers.1);
            let angles = (pxfm::f_atan2(x, y).copysign(x), x.atan2(y));
            assert!(same(angles.0, angles.1), "atan2({x:?}, {y:?}) is {:?}, not {:?}", angles.0, angles.1);
        }
    }

    /// Against the quotient, which is near enough to tell, and to the bit where it is exact.
    #[test]
    fn powers_of_large_numbers() {
        assert_eq!(power(1.0 - f64::EPSILON, -0.5), 1.0 + f64::EPSILON);
        assert_eq!((power(5e-324, -0.5), power(4.0, -0.5)), (2_f64.powi(537), 0.5));
        for exponent in 505..1024 {
            for factor in [1.0, 1.37, 1.999] {
                let x = factor * 2_f64.powi(exponent);
                let (square, root) = (power(x, -2.0), power(x, -0.5));
                let near = |a: f64, b: f64| (a - b).abs() <= 3.0 * b.abs() * f64::EPSILON + 3.0 * 5e-324;
                assert!(near(square, 1.0 / x / x), "power({x:e}, -2) is {square:e}");
                assert!(near(root, 1.0 / x.sqrt()), "power({x:e}, -0.5) is {root:e}");
            }
            let exact =
                if exponent <= 537 { 2_f64.powi(-1022) / 2_f64.powi(2 * exponent - 1022) } else { 0.0 };
            assert_eq!(power(2_f64.powi(exponent), -2.0).to_bits(), exact.to_bits(), "2^{exponent}");
        }
    }

    #[test]
    fn logarithms_of_powers_to_their_base_are_exact() {
        assert!((-307..308).all(|n| logarithm(10.0, format!("1e{n}").parse().unwrap()) == f64::from(n)));
        assert!((-1022..1024).all(|n| logarithm(2.0, 2_f64.powi(n)) == f64::from(n)));
    }
}
