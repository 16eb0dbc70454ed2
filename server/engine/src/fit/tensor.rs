//! What is an input of a model once it is filled?

/// One input of a model, filled: row-major, the first dimension is the row.
#[derive(Debug, Clone, PartialEq)]
pub struct Tensor {
    /// The model's name for it.
    pub name: String,
    /// `[N]` or `[N, width]`.
    pub shape: Vec<usize>,
    /// The elements.
    pub data: TensorData,
}

/// The elements of a tensor.
#[derive(Debug, Clone, PartialEq)]
#[expect(missing_docs, reason = "the names say it")]
pub enum TensorData {
    Float32(Vec<f32>),
    Float64(Vec<f64>),
    Int32(Vec<i32>),
    Int64(Vec<i64>),
    Bool(Vec<bool>),
    String(Vec<String>),
}

impl Tensor {
    /// Some of its rows.
    pub fn slice(&self, start: usize, rows: usize) -> Tensor {
        let width = self.shape.get(1).copied().unwrap_or(1);
        let mut shape = self.shape.clone();
        shape[0] = rows;
        let cells = start * width..(start + rows) * width;
        macro_rules! cut {
            ($($kind:ident),*) => {
                match &self.data { $(TensorData::$kind(data) => TensorData::$kind(data[cells].to_vec()),)* }
            };
        }
        let data = cut!(Float32, Float64, Int32, Int64, Bool, String);
        Tensor { name: self.name.clone(), shape, data }
    }

    /// Appends the rows of `other`, the same input of another request.
    pub fn append(&mut self, other: Tensor) {
        macro_rules! join {
            ($($kind:ident),*) => {
                match (&mut self.data, other.data) {
                    $((TensorData::$kind(data), TensorData::$kind(more)) => data.extend(more),)*
                    _ => unreachable!("an input has one type"),
                }
            };
        }
        join!(Float32, Float64, Int32, Int64, Bool, String);
        self.shape[0] += other.shape[0];
    }
}
