//! Which SQL is read, and how long is it tried?
//!
//! The language is sqlparser's [`GenericDialect`]. A word such as `CAST` or `NOT` may also be the name of a column, so
//! where the parser fails within `CAST(…)` it begins again and reads the same as a call of a function: twice at each
//! level, and four thousand times at twelve. So what begins is counted, and beyond a number nothing begins any more.

use std::any::TypeId;
use std::cell::Cell;

use datafusion_common::{DataFusionError, plan_datafusion_err};
use datafusion_sql::sqlparser::ast::Expr;
use datafusion_sql::sqlparser::dialect::{Dialect, GenericDialect};
use datafusion_sql::sqlparser::keywords::Keyword;
use datafusion_sql::sqlparser::parser::{Parser, ParserError};
use datafusion_sql::sqlparser::tokenizer::{Token, TokenWithSpan};

/// How often an operand may begin, whatever the text, and besides for each of its bytes. What is read once begins fewer
/// operands than it has bytes; the rest is for what is read again.
const BEGINNINGS_ANYWHERE: usize = 10_000;
const BEGINNINGS_FOR_A_BYTE: usize = 1;

/// [`GenericDialect`], until an operand has begun too often.
#[derive(Debug)]
pub(super) struct Bounded {
    begun: Cell<usize>,
    most: usize,
}

impl Bounded {
    /// To read `sql` once.
    pub(super) fn new(sql: &str) -> Bounded {
        Bounded { begun: Cell::new(0), most: BEGINNINGS_ANYWHERE + BEGINNINGS_FOR_A_BYTE * sql.len() }
    }

    /// Whether reading was given up, so that what the parser says of the text is not what is wrong with it.
    pub(super) fn gave_up(&self) -> bool {
        self.begun.get() > self.most
    }
}

/// How deep brackets may nest before the text is parsed. The parser stops at some 50 levels by itself, but not within
/// the name of a type, such as `ARRAY<ARRAY<…`, which nests until no stack holds it.
const BRACKETS_MAX: usize = 1_000;

/// Refuses what nests so deep that the parser would not come back from it.
pub(super) fn check_types(tokens: &[TokenWithSpan]) -> Result<(), ParserError> {
    // Of each bracket that is open, whether it is the `<` of a type.
    let (mut open, mut after_type) = (Vec::new(), false);
    for TokenWithSpan { token, .. } in tokens {
        match token {
            Token::LParen | Token::LBracket | Token::LBrace => open.push(false),
            // Otherwise it compares, and nothing closes it.
            Token::Lt if after_type => open.push(true),
            Token::RParen | Token::RBracket | Token::RBrace => while open.pop() == Some(true) {},
            Token::Gt | Token::ShiftRight => {
                for _ in 0..=usize::from(*token == Token::ShiftRight) {
                    open.pop_if(|of_type| *of_type);
                }
            }
            _ => {}
        }
        if open.len() > BRACKETS_MAX {
            return Err(ParserError::RecursionLimitExceeded);
        }
        match token {
            Token::Whitespace(_) => {}
            Token::Word(word) => after_type = matches!(word.keyword, Keyword::ARRAY | Keyword::STRUCT),
            _ => after_type = false,
        }
    }
    Ok(())
}

/// What is said where reading was given up.
pub(super) fn too_nested() -> DataFusionError {
    plan_datafusion_err!(
        "functions and key words nest too deep to tell what is wrong with them; \
         look for a mistake in the innermost, or split the expression into several features"
    )
}

/// What [`GenericDialect`] answers, for each question that it answers in its own way.
macro_rules! as_generic {
    ($($question:ident)*) => { $(fn $question(&self) -> bool { GenericDialect.$question() })* };
}

impl Dialect for Bounded {
    // The parser asks in some places which dialect it is.
    fn dialect(&self) -> TypeId {
        TypeId::of::<GenericDialect>()
    }

    // Each operand begins here; an error at once ends everything that is still to be tried.
    fn parse_prefix(&self, _: &mut Parser) -> Option<Result<Expr, ParserError>> {
        self.begun.set(self.begun.get() + 1);
        self.gave_up().then_some(Err(ParserError::RecursionLimitExceeded))
    }

    fn is_delimited_identifier_start(&self, ch: char) -> bool {
        GenericDialect.is_delimited_identifier_start(ch)
    }

    fn is_identifier_start(&self, ch: char) -> bool {
        GenericDialect.is_identifier_start(ch)
    }

    fn is_identifier_part(&self, ch: char) -> bool {
        GenericDialect.is_identifier_part(ch)
    }

    as_generic! {
        supports_unicode_string_literal
        supports_partition_by_after_order_by
        supports_array_join_syntax
        supports_group_by_expr
        supports_group_by_with_modifier
        supports_left_associative_joins_without_parens
        supports_connect_by
        supports_match_recognize
        supports_pipe_operator
        supports_start_transaction_modifier
        supports_window_function_null_treatment_arg
        supports_dictionary_syntax
        supports_window_clause_named_window_reference
        supports_parenthesized_set_variables
        supports_select_wildcard_except
        support_map_literal_syntax
        allow_extract_custom
        allow_extract_single_quotes
        supports_extract_comma_syntax
        supports_create_view_comment_syntax
        supports_parens_around_table_factor
        supports_values_as_table_factor
        supports_create_index_with_clause
        supports_explain_with_utility_options
        supports_limit_comma
        supports_update_order_by
        supports_from_first_select
        supports_projection_trailing_commas
        supports_asc_desc_in_column_definition
        supports_try_convert
        supports_bitwise_shift_operators
        supports_comment_on
        supports_load_extension
        supports_named_fn_args_with_assignment_operator
        supports_struct_literal
        supports_empty_projections
        supports_nested_comments
        supports_multiline_comment_hints
        supports_user_host_grantee
        supports_string_escape_constant
        supports_array_typedef_with_brackets
        supports_match_against
        supports_set_names
        supports_comma_separated_set_assignments
        supports_filter_during_aggregation
        supports_select_wildcard_exclude
        supports_data_type_signed_suffix
        supports_interval_options
        supports_quote_delimited_string
        supports_select_wildcard_replace
        supports_select_wildcard_ilike
        supports_select_wildcard_rename
        supports_optimize_table
        supports_install
        supports_detach
        supports_prewhere
        supports_with_fill
        supports_limit_by
        supports_interpolate
        supports_settings
        supports_select_format
        supports_comment_optimizer_hint
        supports_constraint_keyword_without_name
        supports_key_column_option
        supports_comma_separated_trim
        supports_cte_without_as
        supports_select_item_multi_column_alias
        supports_xml_expressions
    }
}

#[cfg(test)]
mod tests {
    use datafusion_sql::parser::DFParserBuilder;

    use super::*;
    use crate::expr::{depth, planner};

    /// What nests, before and after what it nests.
    const FORMS: [(&str, &str); 24] = [
        ("CAST(", " AS BIGINT)"),
        ("TRY_CAST(", " AS BIGINT)"),
        ("SAFE_CAST(", " AS BIGINT)"),
        ("CONVERT(", ", BIGINT)"),
        ("EXTRACT(day FROM ", ")"),
        ("SUBSTRING(", " FROM 1)"),
        ("OVERLAY(", " PLACING 'x' FROM 1)"),
        ("TRIM(", ")"),
        ("TRIM(BOTH 'x' FROM ", ")"),
        ("CEIL(", ")"),
        ("FLOOR(", ")"),
        ("POSITION('a' IN ", ")"),
        ("ARRAY[", "]"),
        ("[", "]"),
        ("STRUCT(", ")"),
        ("MAP {'a': ", "}"),
        ("{'a': ", "}"),
        ("CASE ", " WHEN 1 THEN 2 END"),
        ("CASE WHEN k THEN 1 ELSE ", " END"),
        ("INTERVAL ", " DAY"),
        ("NOT ", ""),
        ("k IN (", ")"),
        ("abs(", ")"),
        ("(", ")"),
    ];

    /// However deep it nests and whatever stands inside, it ends after a known number of beginnings.
    #[test]
    fn every_form_that_nests_is_read_or_given_up() {
        depth::compiling(|| {
            for (open, close) in FORMS {
                for levels in [1, 24, 60, 900] {
                    for inside in ["k", "k k", "(", "CAST(", ""] {
                        let sql = format!("{}{inside}{}", open.repeat(levels), close.repeat(levels));
                        let dialect = Bounded::new(&sql);
                        let built = DFParserBuilder::new(sql.as_str()).with_dialect(&dialect).build();
                        let sound = built.and_then(|mut parser| parser.parse_into_expr()).is_ok();
                        // After giving up each level that is open tries what is left to it, once.
                        let begun = dialect.begun.get();
                        assert!(begun <= dialect.most + 1_000, "{open} × {levels} around {inside}: {begun}");
                        assert!(!(sound && dialect.gave_up()), "{open} × {levels} around {inside}");
                    }
                }
            }
        });
    }

    /// A type nests without end for the parser: without the check this ends the process.
    #[test]
    fn types_that_nest_without_end_are_refused() {
        depth::compiling(|| {
            for (open, close) in [("ARRAY<", ">"), ("STRUCT<a ", ">"), ("array <", ">>"), ("Nullable(", ")")]
            {
                let sql = format!("CAST(k AS {}INT{})", open.repeat(8_000), close.repeat(8_000));
                assert!(planner::words(&sql).is_err(), "{open}");
            }
            let compared = vec!["k < 1"; 2_000].join(" AND ");
            assert!(planner::words(&compared).is_ok());
            assert!(planner::words("CAST(k AS ARRAY<ARRAY<STRUCT<a INT>>>)").is_ok());
        });
    }

    /// The parser does all that it does for [`GenericDialect`].
    #[test]
    fn the_language_is_that_of_the_generic_dialect() {
        let texts = FORMS.iter().flat_map(|(open, close)| [1, 3].map(|n| (open.repeat(n), close.repeat(n))));
        let texts =
            texts.flat_map(|(open, close)| ["k", "k k"].map(|inside| format!("{open}{inside}{close}")));
        let more = [
            "`k` + \"K\"",
            "#a + @b",
            "U&'\\0041'",
            "E'a\\n'",
            "1 << 2",
            "q'[a]'",
            "/* /* */ */ 1",
            "f(a => 1)",
            "f(a := 1)",
            "{'a': 1}",
            "STRUCT<a INT>(1)",
            "INTERVAL '1' DAY",
            "xml '<a/>'",
            "extract('day' from t)",
            "extract(day, t)",
            "trim(a, b)",
            "MATCH (a) AGAINST ('b')",
            "a -> 'b'",
            "array_agg(a) FILTER (WHERE a)",
            "lag(a) IGNORE NULLS OVER ()",
            "a::unsigned",
            "x -> x + 1",
            "!k",
        ];
        for sql in texts.chain(more.map(str::to_owned)) {
            let generic = DFParserBuilder::new(sql.as_str()).with_dialect(&GenericDialect).build();
            let generic = generic.and_then(|mut parser| parser.parse_into_expr());
            let ours = planner::words(&sql);
            assert_eq!(format!("{ours:?}"), format!("{generic:?}"), "{sql}");
        }
    }
}
