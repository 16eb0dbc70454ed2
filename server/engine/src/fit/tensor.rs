//! What is an input of a model once it is filled?

/// One input of a model, filled: row-major, the first dimension is the row.
#[derive(Debug, Clone, PartialEq)]
pub struct Tensor {
    /// The model's name for it.
    pub name: String,
    /// The rows, and the dimensions of each.
    pub shape: Vec<usize>,
    /// The elements.
    pub data: TensorData,
}

/// Calls a macro with every kind of elements but texts: its name, and the Rust type of one.
#[macro_export]
macro_rules! each_number_kind {
    ($with:ident) => {
        $with! {
            Float16: $crate::fit::f16, BFloat16: $crate::fit::bf16, Float32: f32, Float64: f64,
            Int8: i8, Int16: i16, Int32: i32, Int64: i64,
            UInt8: u8, UInt16: u16, UInt32: u32, UInt64: u64,
            Bool: bool
        }
    };
}

macro_rules! tensor_data {
    ($($kind:ident: $cell:ty),*) => {
        /// The elements of a tensor.
        #[derive(Debug, Clone, PartialEq)]
        #[expect(missing_docs, reason = "the names say it")]
        pub enum TensorData {
            $($kind(Vec<$cell>),)*
            String(Vec<String>),
        }

        impl TensorData {
            fn slice(&self, cells: std::ops::Range<usize>) -> TensorData {
                match self {
                    $(TensorData::$kind(data) => TensorData::$kind(data[cells].to_vec()),)*
                    TensorData::String(data) => TensorData::String(data[cells].to_vec()),
                }
            }

            fn append(&mut self, other: TensorData) {
                match (self, other) {
                    $((TensorData::$kind(data), TensorData::$kind(more)) => data.extend(more),)*
                    (TensorData::String(data), TensorData::String(more)) => data.extend(more),
                    _ => unreachable!("an input has one type"),
                }
            }
        }
    };
}
each_number_kind!(tensor_data);

impl Tensor {
    /// Some of its rows.
    pub fn slice(&self, start: usize, rows: usize) -> Tensor {
        let width: usize = self.shape[1..].iter().product();
        let mut shape = self.shape.clone();
        shape[0] = rows;
        let data = self.data.slice(start * width..(start + rows) * width);
        Tensor { name: self.name.clone(), shape, data }
    }

    /// Its last row `rows` times more.
    pub fn pad(&mut self, rows: usize) {
        let mut last = self.slice(self.shape[0] - 1, 1);
        // Twice as many each time.
        let mut left = rows;
        while left > 0 {
            let now = left.min(last.shape[0]);
            self.append(last.slice(0, now));
            left -= now;
            let twice = last.clone();
            last.append(twice);
        }
    }

    /// Appends the rows of `other`, the same input of another request.
    pub fn append(&mut self, other: Tensor) {
        self.data.append(other.data);
        self.shape[0] += other.shape[0];
    }
}
