//! Which values may a file hold, and what are they in a type of ours? In 128 bits or a double, one by one.

use std::sync::Arc;

use arrow::array::ArrowPrimitiveType;
use arrow::datatypes::{DataType, Field, Float16Type, TimeUnit};
use quern_kit::Random;

const DAY_MS: i128 = 86_400_000;

/// A value as it is stored: of decimals, dates and times the number that stands for it.
#[derive(Debug, Clone)]
pub(super) enum Value {
    Whole(i128),
    Float(f64),
    Text(String),
    Bytes(Vec<u8>),
    List(Vec<Option<Value>>),
}

/// Bit for bit, but that one NaN is as good as another.
impl PartialEq for Value {
    fn eq(&self, other: &Value) -> bool {
        match (self, other) {
            (Value::Whole(a), Value::Whole(b)) => a == b,
            (Value::Float(a), Value::Float(b)) => a.to_bits() == b.to_bits() || a.is_nan() && b.is_nan(),
            (Value::Text(a), Value::Text(b)) => a == b,
            (Value::Bytes(a), Value::Bytes(b)) => a == b,
            (Value::List(a), Value::List(b)) => a == b,
            _ => false,
        }
    }
}

impl Value {
    pub(super) fn whole(&self) -> i128 {
        let Value::Whole(number) = self else { panic!("{self:?} is no whole number") };
        *number
    }

    pub(super) fn float(&self) -> f64 {
        let Value::Float(number) = self else { panic!("{self:?} is no float") };
        *number
    }
}

fn dictionary(value: DataType) -> DataType {
    DataType::Dictionary(Box::new(DataType::Int32), Box::new(value))
}

fn item(dtype: DataType) -> Arc<Field> {
    Arc::new(Field::new("item", dtype, true))
}

/// The types of files.
pub(super) fn types() -> Vec<DataType> {
    use DataType::*;
    let mut types = vec![
        Boolean,
        Int8,
        Int16,
        Int32,
        Int64,
        UInt8,
        UInt16,
        UInt32,
        UInt64,
        Float16,
        Float32,
        Float64,
        Utf8,
        LargeUtf8,
        Utf8View,
        Binary,
        LargeBinary,
        BinaryView,
        FixedSizeBinary(3),
        Date32,
        Date64,
    ];
    types.extend([(9, 0), (9, 2)].map(|(precision, scale)| Decimal32(precision, scale)));
    types.extend([(18, 0), (18, 4)].map(|(precision, scale)| Decimal64(precision, scale)));
    types.extend([(38, 0), (38, 10)].map(|(precision, scale)| Decimal128(precision, scale)));
    types.extend([(76, 0), (76, 20)].map(|(precision, scale)| Decimal256(precision, scale)));
    for unit in [TimeUnit::Second, TimeUnit::Millisecond, TimeUnit::Microsecond, TimeUnit::Nanosecond] {
        types.extend(
            [None, Some("UTC"), Some("Europe/Berlin")].map(|zone| Timestamp(unit, zone.map(Arc::from))),
        );
    }
    types.extend([Utf8, Int64, UInt64, Float64].map(dictionary));
    let texts = [Utf8, LargeUtf8, Utf8View, dictionary(Utf8)];
    for of in [Int16, UInt64, Float32, Float64, Boolean].into_iter().chain(texts) {
        types.extend([List(item(of.clone())), LargeList(item(of.clone())), FixedSizeList(item(of), 3)]);
    }
    types
}

/// The types that a column may be declared as that is of this one in a file, the one that it has by itself first.
pub(super) fn targets(dtype: &DataType) -> Vec<&'static str> {
    use DataType::*;
    const FLOATS: [&str; 2] = ["float64", "float32"];
    match dtype {
        Dictionary(_, value) => targets(value),
        Boolean => vec!["bool"],
        Int8 | Int16 | Int32 | UInt8 | UInt16 => vec!["int32", "int64", "float64", "float32"],
        Int64 | UInt32 | UInt64 => vec!["int64", "int32", "float64", "float32"],
        Decimal32(_, 0) | Decimal64(_, 0) | Decimal128(_, 0) | Decimal256(_, 0) => {
            vec!["int64", "int32", "float64", "float32"]
        }
        dtype if dtype.is_decimal() => FLOATS.to_vec(),
        Float16 | Float32 => vec!["float32", "float64"],
        Float64 => FLOATS.to_vec(),
        Utf8 | LargeUtf8 | Utf8View => vec!["string"],
        Binary | LargeBinary | BinaryView | FixedSizeBinary(_) => vec!["bytes"],
        Date32 | Date64 => vec!["date", "timestamp"],
        Timestamp(..) => vec!["timestamp"],
        List(of) | LargeList(of) | FixedSizeList(of, _) => {
            let other = match of.data_type() {
                Boolean => Some(["list<bool>", "list<bool, 3>"]),
                of if targets(of) == ["string"] => Some(["list<string>", "list<string, 3>"]),
                _ => None,
            };
            if let Some([any, three]) = other {
                return if matches!(dtype, FixedSizeList(..)) { vec![three, any] } else { vec![any, three] };
            }
            let by_itself = match (of.data_type(), matches!(dtype, FixedSizeList(..))) {
                (Int16, false) => "list<int32>",
                (Int16, true) => "list<int32, 3>",
                (UInt64, false) => "list<int64>",
                (UInt64, true) => "list<int64, 3>",
                (Float32, false) => "list<float32>",
                (Float32, true) => "list<float32, 3>",
                (_, false) => "list<float64>",
                (_, true) => "list<float64, 3>",
            };
            vec![by_itself, "list<float32>", "list<float32, 3>"]
        }
        other => panic!("{other} is not among the types"),
    }
}

/// A day since 1970 in a type of times.
pub(super) fn days(day: i64, dtype: &DataType) -> Value {
    let seconds = i128::from(day) * 86_400;
    Value::Whole(match dtype {
        DataType::Dictionary(_, value) => return days(day, value),
        DataType::Date32 => day.into(),
        DataType::Date64 => i128::from(day) * DAY_MS,
        DataType::Timestamp(unit, _) => seconds * per_second(*unit),
        other => panic!("{other} is no time"),
    })
}

fn per_second(unit: TimeUnit) -> i128 {
    match unit {
        TimeUnit::Second => 1,
        TimeUnit::Millisecond => 1_000,
        TimeUnit::Microsecond => 1_000_000,
        TimeUnit::Nanosecond => 1_000_000_000,
    }
}

/// The least and the greatest number that the type stores.
fn range(dtype: &DataType) -> (i128, i128) {
    use DataType::*;
    match dtype {
        Boolean => (0, 1),
        Int8 => (i8::MIN.into(), i8::MAX.into()),
        Int16 => (i16::MIN.into(), i16::MAX.into()),
        Int32 | Date32 => (i32::MIN.into(), i32::MAX.into()),
        UInt8 => (0, u8::MAX.into()),
        UInt16 => (0, u16::MAX.into()),
        UInt32 => (0, u32::MAX.into()),
        UInt64 => (0, u64::MAX.into()),
        Decimal32(precision, _) | Decimal64(precision, _) | Decimal128(precision, _) => {
            let end = 10_i128.pow(u32::from(*precision));
            (1 - end, end - 1)
        }
        Decimal256(..) => (-i128::MAX, i128::MAX),
        _ => (i64::MIN.into(), i64::MAX.into()),
    }
}

/// A value of the type, often one at an edge; sometimes none.
pub(super) fn draw(random: &mut Random, dtype: &DataType) -> Option<Value> {
    if random.below(8) == 0 {
        return None;
    }
    Some(match dtype {
        DataType::Dictionary(_, value) => draw(random, value)?,
        DataType::Float16 | DataType::Float32 | DataType::Float64 => {
            let any = random.draw() as i64 as f64 / 1e6;
            let edges = [
                0.0,
                -0.0,
                1.5,
                any,
                f64::NAN,
                f64::INFINITY,
                f64::NEG_INFINITY,
                1e300,
                -1e39,
                65_504.0,
                1e-45,
                16_777_217.0,
                f64::from(f32::MAX),
                f64::MAX,
                f64::MIN_POSITIVE,
            ];
            let number = if random.below(2) == 0 { any } else { random.pick(&edges) };
            Value::Float(match dtype {
                DataType::Float16 => half(number).into(),
                DataType::Float32 => f64::from(number as f32),
                _ => number,
            })
        }
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => Value::Text(
            random.pick(&["", "a", "é", "0", "a text that is longer than a view holds"]).to_owned(),
        ),
        DataType::FixedSizeBinary(size) => Value::Bytes(vec![random.draw() as u8; *size as usize]),
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView => Value::Bytes(
            random.pick(&[&b""[..], b"\0", b"\xff\xfe", b"bytes that are longer than a view"]).to_vec(),
        ),
        DataType::List(of) | DataType::LargeList(of) => {
            Value::List((0..random.below(5)).map(|_| draw(random, of.data_type())).collect())
        }
        DataType::FixedSizeList(of, size) => {
            Value::List((0..*size).map(|_| draw(random, of.data_type())).collect())
        }
        _ => {
            let (least, most) = range(dtype);
            let any = i128::from(random.draw() as i64) >> random.below(60);
            let edges = [
                least,
                least + 1,
                most,
                most - 1,
                0,
                1,
                -1,
                any,
                any,
                1 << 24 | 1,
                1 << 31,
                1 << 53 | 1,
                i128::from(i64::MAX) + 1,
                -DAY_MS,
                DAY_MS - 1,
                1_700_000_000_000_001,
            ];
            let small = i128::from(random.below(100));
            let number = if random.below(2) == 0 { small } else { random.pick(&edges) };
            Value::Whole(number.clamp(least, most))
        }
    })
}

pub(super) type Half = <Float16Type as ArrowPrimitiveType>::Native;

/// The nearest number of 16 bits.
pub(super) fn half(number: f64) -> Half {
    Half::from_f64(number)
}

/// A stored value of type `from` in type `to`; none where that cannot say it.
pub(super) fn said(from: &DataType, value: &Value, to: &DataType) -> Option<Value> {
    use DataType::*;
    let single = |x: f64| {
        let narrow = x as f32;
        (narrow.is_finite() || !x.is_finite()).then_some(Value::Float(narrow.into()))
    };
    let within = |number: i128, of: &DataType| {
        let (least, most) = range(of);
        (least..=most).contains(&number).then_some(Value::Whole(number))
    };
    match (from, to) {
        (Dictionary(_, from), to) => said(from, value, to),
        (List(from) | LargeList(from) | FixedSizeList(from, _), List(of) | FixedSizeList(of, _)) => {
            let Value::List(items) = value else { panic!("{value:?} is no list") };
            if matches!(to, FixedSizeList(_, size) if *size as usize != items.len()) {
                return None;
            }
            let item = |item: &Option<Value>| match item {
                Some(item) => said(from.data_type(), item, of.data_type()).map(Some),
                None => Some(None),
            };
            items.iter().map(item).collect::<Option<_>>().map(Value::List)
        }
        (Float16 | Float32 | Float64, Float32) => single(value.float()),
        (Float16 | Float32 | Float64, _) => Some(value.clone()),
        (Timestamp(unit, _), _) => within((value.whole() * 1_000_000).div_euclid(per_second(*unit)), to),
        (Date32, Timestamp(..)) => within(value.whole() * DAY_MS * 1_000, to),
        (Date64, Timestamp(..)) => within(value.whole() * 1_000, to),
        (Date64, _) => within(value.whole().div_euclid(DAY_MS), to),
        (
            Decimal32(_, scale) | Decimal64(_, scale) | Decimal128(_, scale) | Decimal256(_, scale),
            Float64 | Float32,
        ) => {
            // As its text says it.
            let number: f64 = format!("{}e{}", value.whole(), -scale).parse().unwrap();
            if *to == Float64 { Some(Value::Float(number)) } else { single(number) }
        }
        (from, Float64) if from.is_integer() => Some(Value::Float(value.whole() as f64)),
        (from, Float32) if from.is_integer() => Some(Value::Float((value.whole() as f32).into())),
        (from, to) if from.is_numeric() => within(value.whole(), to),
        (Date32 | Boolean, _) => within(value.whole(), to),
        _ => Some(value.clone()),
    }
}
