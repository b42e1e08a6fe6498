//! XML-RPC values, written and read. By hand: what supervisord speaks is what Python's `xmlrpc.client` writes, ten elements
//! without attributes, while the crate for it (dxr 0.9) adds 190 kB to the binary and eight crates to the build. And it must be
//! read less strictly than XML asks: supervisord puts the control characters of a log into its answers as they are,
//! which an XML parser has to refuse.

use std::collections::BTreeMap;

/// What a method is given or answers.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// `<int>`, `<i4>`, `<i8>`
    Int(i64),
    /// `<boolean>`
    Bool(bool),
    /// `<double>`
    Double(f64),
    /// `<string>`, or no element at all
    Text(String),
    /// `<array>`
    Array(Vec<Value>),
    /// `<struct>`
    Struct(BTreeMap<String, Value>),
    /// `<nil/>`
    Nil,
}

impl Value {
    /// The member `name` of a struct.
    pub fn member(&self, name: &str) -> Option<&Self> {
        match self {
            Self::Struct(members) => members.get(name),
            _ => None,
        }
    }

    /// Its number, if it is one.
    pub fn int(&self) -> Option<i64> {
        match self {
            Self::Int(number) => Some(*number),
            Self::Bool(truth) => Some(i64::from(*truth)),
            _ => None,
        }
    }

    /// Its text, if it is one.
    pub fn text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    /// Its elements, if it is an array.
    pub fn array(&self) -> Option<&[Self]> {
        match self {
            Self::Array(elements) => Some(elements),
            _ => None,
        }
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

/// The text of a method call.
pub fn call(method: &str, parameters: &[Value]) -> String {
    let mut out = format!("<?xml version=\"1.0\"?><methodCall><methodName>{method}</methodName><params>");
    for parameter in parameters {
        out.push_str("<param>");
        write(parameter, &mut out);
        out.push_str("</param>");
    }
    out.push_str("</params></methodCall>");
    out
}

fn write(value: &Value, out: &mut String) {
    out.push_str("<value>");
    match value {
        Value::Int(number) => out.push_str(&format!("<int>{number}</int>")),
        Value::Bool(truth) => out.push_str(&format!("<boolean>{}</boolean>", u8::from(*truth))),
        Value::Double(number) => out.push_str(&format!("<double>{number}</double>")),
        Value::Text(text) => out.push_str(&format!("<string>{}</string>", escape(text))),
        Value::Array(elements) => {
            out.push_str("<array><data>");
            elements.iter().for_each(|element| write(element, out));
            out.push_str("</data></array>");
        }
        Value::Struct(members) => {
            out.push_str("<struct>");
            for (name, value) in members {
                out.push_str(&format!("<member><name>{}</name>", escape(name)));
                write(value, out);
                out.push_str("</member>");
            }
            out.push_str("</struct>");
        }
        Value::Nil => out.push_str("<nil/>"),
    }
    out.push_str("</value>");
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

/// Reads the text of an answer: the value, or the fault as a value (`faultCode`, `faultString`); `None` if it is neither.
pub fn answer(text: &str) -> Option<Result<Value, Value>> {
    let mut rest = text.trim_start();
    if let Some(declared) = rest.strip_prefix("<?xml") {
        rest = declared.split_once("?>")?.1;
    }
    let mut reader = Reader { rest };
    reader.open("methodResponse")?;
    let answer = if reader.open("fault").is_some() {
        let fault = reader.value(0)?;
        reader.open("/fault")?;
        Err(fault)
    } else {
        reader.open("params")?;
        reader.open("param")?;
        let value = reader.value(0)?;
        reader.open("/param")?;
        reader.open("/params")?;
        Ok(value)
    };
    reader.open("/methodResponse")?;
    reader.rest.trim().is_empty().then_some(answer)
}

/// No answer of supervisord nests deeper than four.
const DEEPEST: usize = 16;

struct Reader<'a> {
    rest: &'a str,
}

impl Reader<'_> {
    /// Takes the tag `<name>` after white space; nothing is taken if something else comes.
    fn open(&mut self, name: &str) -> Option<()> {
        let tag = self.rest.trim_start().strip_prefix('<')?.strip_prefix(name)?;
        self.rest = tag.strip_prefix('>')?;
        Some(())
    }

    /// Takes the text up to the next tag.
    fn text(&mut self) -> Option<String> {
        let (text, rest) = self.rest.split_at(self.rest.find('<')?);
        self.rest = rest;
        unescape(text)
    }

    /// Takes `<name>`, its text and `</name>`.
    fn element(&mut self, name: &str) -> Option<String> {
        self.open(name)?;
        let text = self.text()?;
        self.open(&format!("/{name}"))?;
        Some(text)
    }

    fn value(&mut self, depth: usize) -> Option<Value> {
        if depth > DEEPEST {
            return None;
        }
        self.open("value")?;
        let value = self.typed(depth)?;
        self.open("/value")?;
        Some(value)
    }

    fn typed(&mut self, depth: usize) -> Option<Value> {
        for name in ["int", "i4", "i8"] {
            if let Some(text) = self.element(name) {
                return text.trim().parse().ok().map(Value::Int);
            }
        }
        if let Some(text) = self.element("string") {
            return Some(Value::Text(text));
        }
        if let Some(text) = self.element("boolean") {
            return Some(Value::Bool(text.trim() == "1"));
        }
        if let Some(text) = self.element("double") {
            return text.trim().parse().ok().map(Value::Double);
        }
        if self.open("nil/").is_some() {
            return Some(Value::Nil);
        }
        if self.open("array").is_some() {
            return self.elements(depth).map(Value::Array);
        }
        if self.open("struct").is_some() {
            return self.members(depth).map(Value::Struct);
        }
        let text = self.text()?;
        self.rest.starts_with("</value>").then_some(Value::Text(text))
    }

    fn elements(&mut self, depth: usize) -> Option<Vec<Value>> {
        let mut elements = Vec::new();
        self.open("data")?;
        while self.open("/data").is_none() {
            elements.push(self.value(depth + 1)?);
        }
        self.open("/array")?;
        Some(elements)
    }

    fn members(&mut self, depth: usize) -> Option<BTreeMap<String, Value>> {
        let mut members = BTreeMap::new();
        while self.open("/struct").is_none() {
            self.open("member")?;
            let name = self.element("name")?;
            members.insert(name, self.value(depth + 1)?);
            self.open("/member")?;
        }
        Some(members)
    }
}

fn unescape(text: &str) -> Option<String> {
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('&') {
        let (name, tail) = after.split_once(';')?;
        out.push_str(before);
        out.push(match name {
            "lt" => '<',
            "gt" => '>',
            "amp" => '&',
            "quot" => '"',
            "apos" => '\'',
            _ => {
                let number = name.strip_prefix('#')?;
                let hexadecimal = number.strip_prefix('x').map(|digits| u32::from_str_radix(digits, 16));
                char::from_u32(hexadecimal.unwrap_or_else(|| number.parse()).ok()?)?
            }
        });
        rest = tail;
    }
    out.push_str(rest);
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn an_answer_of_pythons_is_read() {
        let text = "<?xml version='1.0'?>\n<methodResponse>\n<params>\n<param>\n<value><array><data>\n<value><struct>\n\
                    <member>\n<name>pid</name>\n<value><int>12</int></value>\n</member>\n<member>\n<name>spawnerr</name>\n\
                    <value><string> a&lt;b &amp; \x1b[0m</string></value>\n</member>\n</struct></value>\n\
                    <value><boolean>1</boolean></value>\n<value>bare</value>\n<value></value>\n</data></array></value>\n</param>\n\
                    </params>\n</methodResponse>\n";
        let value = answer(text).unwrap().unwrap();
        let elements = value.array().unwrap();
        assert_eq!(elements[0].member("pid").and_then(Value::int), Some(12));
        assert_eq!(elements[0].member("spawnerr").and_then(Value::text), Some(" a<b & \x1b[0m"));
        assert_eq!(elements[1..], [Value::Bool(true), "bare".into(), "".into()]);
    }

    #[test]
    fn a_fault_is_told_from_an_answer() {
        let text = "<methodResponse><fault><value><struct><member><name>faultCode</name><value><int>10</int></value>\
                    </member></struct></value></fault></methodResponse>";
        let fault = answer(text).unwrap().unwrap_err();
        assert_eq!(fault.member("faultCode").and_then(Value::int), Some(10));
    }

    #[test]
    fn what_is_torn_or_too_deep_is_no_answer() {
        let whole = format!(
            "<methodResponse><params><param>{}</param></params></methodResponse>",
            "<value><int>1</int></value>"
        );
        assert!(answer(&whole).is_some());
        for cut in 0..whole.len() {
            assert_eq!(answer(&whole[..cut]), None);
        }
        let deep = "<value><array><data>".repeat(100_000);
        assert_eq!(answer(&format!("<methodResponse><params><param>{deep}")), None);
        assert_eq!(answer("<html></html>"), None);
        assert_eq!(unescape("&nope;"), None);
        assert_eq!(unescape("&#65;&#x42;").as_deref(), Some("AB"));
    }

    fn values() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            any::<i64>().prop_map(Value::Int),
            any::<bool>().prop_map(Value::Bool),
            any::<String>().prop_map(Value::Text),
            Just(Value::Nil),
        ];
        leaf.prop_recursive(4, 32, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::Array),
                prop::collection::btree_map(any::<String>(), inner, 0..4).prop_map(Value::Struct),
            ]
        })
    }

    proptest! {
        #[test]
        fn every_value_survives_its_own_text(value in values()) {
            let mut text = String::new();
            write(&value, &mut text);
            let text = format!("<methodResponse><params><param>{text}</param></params></methodResponse>");
            prop_assert_eq!(answer(&text), Some(Ok(value)));
        }

        #[test]
        fn no_text_makes_it_panic(text in any::<String>()) {
            let _ = answer(&text);
        }
    }
}
