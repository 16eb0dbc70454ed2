//! Which functions of SQL are there?

use std::collections::HashMap;
use std::sync::{Arc, LazyLock};

use arrow::datatypes::DataType;
use datafusion_common::config::ConfigOptions;
use datafusion_common::{Result, TableReference, internal_err, plan_err};
use datafusion_expr::planner::{ContextProvider, ExprPlanner};
use datafusion_expr::{AggregateUDF, HigherOrderUDF, ScalarUDF, TableSource, WindowUDF};
use datafusion_functions as functions;
use datafusion_functions_aggregate as aggregate;
use datafusion_functions_nested as nested;
use datafusion_functions_window as window;

use super::{real, wrapped};

/// Every function there is, by its names. Those that look at several rows are known too, so that whoever calls one is
/// told that, and not that there is none.
pub(super) struct Functions {
    pub(super) options: Arc<ConfigOptions>,
    planners: Vec<Arc<dyn ExprPlanner>>,
    scalar: HashMap<String, Arc<ScalarUDF>>,
    higher_order: HashMap<String, Arc<HigherOrderUDF>>,
    aggregate: HashMap<String, Arc<AggregateUDF>>,
    window: HashMap<String, Arc<WindowUDF>>,
}

pub(super) static FUNCTIONS: LazyLock<Functions> = LazyLock::new(|| {
    let mut options = ConfigOptions::default();
    options.sql_parser.enable_ident_normalization = false;
    options.sql_parser.map_string_types_to_utf8view = false;
    let scalar = functions::all_default_functions().into_iter().chain(nested::all_default_nested_functions());
    // Ours come last, and take the place of DataFusion's.
    let mut scalar =
        by_name(scalar.chain(real::functions()), |function| (function.name(), function.aliases()));
    for name in wrapped::names() {
        if let Some(function) = scalar.get(name).cloned() {
            let names: Vec<String> = function.aliases().iter().cloned().chain([name.to_owned()]).collect();
            let function = wrapped::wrapped(name, function);
            scalar.extend(names.into_iter().map(|name| (name, Arc::clone(&function))));
        }
    }
    // Of our own building, not of a row.
    scalar.remove("version");
    Functions {
        options: Arc::new(options),
        planners: vec![
            Arc::new(functions::core::planner::CoreFunctionPlanner::default()),
            Arc::new(nested::planner::NestedFunctionPlanner),
            Arc::new(nested::planner::FieldAccessPlanner),
            Arc::new(functions::datetime::planner::DatetimeFunctionPlanner),
            Arc::new(functions::unicode::planner::UnicodeFunctionPlanner),
            Arc::new(aggregate::planner::AggregateFunctionPlanner),
            Arc::new(window::planner::WindowFunctionPlanner),
        ],
        scalar,
        higher_order: by_name(nested::all_default_higher_order_functions(), |function| {
            (function.name(), function.aliases())
        }),
        aggregate: by_name(aggregate::all_default_aggregate_functions(), |function| {
            (function.name(), function.aliases())
        }),
        window: by_name(window::all_default_window_functions(), |function| {
            (function.name(), function.aliases())
        }),
    }
});

fn by_name<F>(
    functions: impl IntoIterator<Item = Arc<F>>,
    names: impl Fn(&F) -> (&str, &[String]),
) -> HashMap<String, Arc<F>> {
    let mut known = HashMap::new();
    for function in functions {
        let (name, aliases) = names(&function);
        let names: Vec<String> = aliases.iter().cloned().chain([name.to_owned()]).collect();
        known.extend(names.into_iter().map(|name| (name, Arc::clone(&function))));
    }
    known
}

/// The names of the functions that look at one row.
pub(super) fn function_names() -> impl Iterator<Item = &'static str> {
    FUNCTIONS.scalar.keys().map(String::as_str)
}

/// The function called `name`.
pub(super) fn function(name: &str) -> Result<Arc<ScalarUDF>> {
    let Some(function) = FUNCTIONS.scalar.get(name) else {
        return internal_err!("there is no function {name}");
    };
    Ok(Arc::clone(function))
}

impl ContextProvider for Functions {
    fn get_table_source(&self, name: TableReference) -> Result<Arc<dyn TableSource>> {
        plan_err!("table '{name}' not found")
    }

    fn get_expr_planners(&self) -> &[Arc<dyn ExprPlanner>] {
        &self.planners
    }

    fn get_function_meta(&self, name: &str) -> Option<Arc<ScalarUDF>> {
        self.scalar.get(name).cloned()
    }

    fn get_higher_order_meta(&self, name: &str) -> Option<Arc<HigherOrderUDF>> {
        self.higher_order.get(name).cloned()
    }

    fn get_aggregate_meta(&self, name: &str) -> Option<Arc<AggregateUDF>> {
        self.aggregate.get(name).cloned()
    }

    fn get_window_meta(&self, name: &str) -> Option<Arc<WindowUDF>> {
        self.window.get(name).cloned()
    }

    fn get_variable_type(&self, _: &[String]) -> Option<DataType> {
        None
    }

    fn options(&self) -> &ConfigOptions {
        &self.options
    }

    fn udf_names(&self) -> Vec<String> {
        self.scalar.keys().cloned().collect()
    }

    fn higher_order_function_names(&self) -> Vec<String> {
        self.higher_order.keys().cloned().collect()
    }

    fn udaf_names(&self) -> Vec<String> {
        self.aggregate.keys().cloned().collect()
    }

    fn udwf_names(&self) -> Vec<String> {
        self.window.keys().cloned().collect()
    }
}
