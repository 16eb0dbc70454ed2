//! What happens on the server, in one step?
//!
//! Each script takes keys of one slot and a value for each. Comparing and writing are one step there, so whatever other
//! servers write meanwhile, a row never replaces a later one.

use redis::{Cmd, Script};

/// A script and its name: the hash of its text.
pub(super) struct Named {
    text: String,
    hash: String,
}

impl Named {
    fn new(text: String) -> Named {
        let hash = Script::new(&text).get_hash().to_owned();
        Named { text, hash }
    }

    /// Makes the script known to a server. It goes ahead of every batch: so no server, new, restarted or promoted,
    /// is ever asked for one that it does not have, and a server that has it only hashes a few hundred bytes.
    pub(super) fn load(&self) -> Cmd {
        let mut command = redis::cmd("SCRIPT");
        command.arg("LOAD").arg(&self.text);
        command
    }

    /// Runs the script, which the server knows, on `keys`.
    pub(super) fn run<'a>(&self, keys: impl ExactSizeIterator<Item = &'a [u8]>) -> Cmd {
        let mut command = redis::cmd("EVALSHA");
        command.arg(&self.hash).arg(keys.len());
        keys.for_each(|key| {
            command.arg(key);
        });
        command
    }
}

/// All of them.
pub(super) struct Scripts {
    /// Rows: each replaces what is stored unless that has a later place in the order of time.
    pub(super) upsert: Named,
    /// Values, each behind what it was made from (empty: nothing): replaces only that. Returns the numbers, from 0, of
    /// those that found something else.
    pub(super) replace_if: Named,
    /// Values: removes those that are stored. Returns how many that were.
    pub(super) remove_if: Named,
    /// A field of a hash and a number, eight bytes, big-endian: the larger one stays.
    pub(super) raise: Named,
    /// Fields of a hash, each with what it is (32 zeroes where there is none) and what is to take its place. Returns 1
    /// where that is stored now in all of them; else 0, and nothing is changed.
    pub(super) advance: Named,
    /// Fields of a hash, each with what its bytes from the 17th on are (zeroes where there are none) and what they
    /// become. Returns 0 where one is something else, which stays.
    pub(super) begin: Named,
    /// A token and milliseconds: whoever has the token, or comes where nobody has one, has it for so long. Returns 1
    /// for them, else 0. Of 0 milliseconds: gives it back.
    pub(super) turn: Named,
}

impl Scripts {
    pub(super) fn new() -> Scripts {
        Scripts {
            upsert: Named::new(UPSERT.to_owned()),
            replace_if: Named::new(REPLACE_IF.to_owned()),
            remove_if: Named::new(REMOVE_IF.to_owned()),
            raise: Named::new(RAISE.to_owned()),
            advance: Named::new(ADVANCE.to_owned()),
            begin: Named::new(BEGIN.to_owned()),
            turn: Named::new(TURN.to_owned()),
        }
    }
}

/// The event timestamp of a stored row lies in bytes 2 to 9, the created timestamp in bytes 10 to 17, counted from 1;
/// both are signed and little-endian. A number of the language has 53 bits, so they are compared byte by byte, from the
/// most significant one, whose sign bit is turned. Returns how many rows were written, how many were there already, and
/// how many found a later one.
const UPSERT: &str = "
local function later(a, b)
  if #a < 17 or a:byte(1) ~= 1 or b:byte(1) ~= 1 then
    error('a stored row is of no version that this build knows')
  end
  for high = 9, 17, 8 do
    for at = high, high - 7, -1 do
      local x, y = a:byte(at), b:byte(at)
      if at == high then x, y = (x + 128) % 256, (y + 128) % 256 end
      if x ~= y then return x > y end
    end
  end
  return false
end
local all = redis.call('MGET', unpack(KEYS))
local fresh, unchanged, older = {}, 0, 0
for i, key in ipairs(KEYS) do
  local stored, value = all[i], ARGV[i]
  if stored == value then unchanged = unchanged + 1
  elseif stored and later(stored, value) then older = older + 1
  else
    fresh[#fresh + 1] = key
    fresh[#fresh + 1] = value
  end
end
if #fresh > 0 then redis.call('MSET', unpack(fresh)) end
return {#fresh / 2, unchanged, older}
";

const REPLACE_IF: &str = "
local all = redis.call('MGET', unpack(KEYS))
local fresh, conflicts = {}, {}
for i, key in ipairs(KEYS) do
  local stored, expected, value = all[i] or '', ARGV[2 * i - 1], ARGV[2 * i]
  if stored == expected then
    fresh[#fresh + 1] = key
    fresh[#fresh + 1] = value
  elseif stored ~= value then
    conflicts[#conflicts + 1] = i - 1
  end
end
if #fresh > 0 then redis.call('MSET', unpack(fresh)) end
return conflicts
";

const REMOVE_IF: &str = "
local all = redis.call('MGET', unpack(KEYS))
local gone = {}
for i, key in ipairs(KEYS) do
  if all[i] == ARGV[i] then gone[#gone + 1] = key end
end
if #gone > 0 then redis.call('UNLINK', unpack(gone)) end
return #gone
";

const RAISE: &str = "
local field, value = ARGV[1], ARGV[2]
local stored = redis.call('HGET', KEYS[1], field)
if stored then
  for at = 1, 8 do
    local x, y = stored:byte(at), value:byte(at)
    if at == 1 then x, y = (x + 128) % 256, (y + 128) % 256 end
    if x > y then return 0 end
    if x < y then break end
    if at == 8 then return 0 end
  end
end
redis.call('HSET', KEYS[1], field, value)
return 1
";

const ADVANCE: &str = "
local fresh = {}
for i = 1, #ARGV, 3 do
  local stored = redis.call('HGET', KEYS[1], ARGV[i]) or string.rep('\\0', 32)
  if stored == ARGV[i + 1] then
    fresh[#fresh + 1] = ARGV[i]
    fresh[#fresh + 1] = ARGV[i + 2]
  elseif stored ~= ARGV[i + 2] then return 0
  end
end
if #fresh > 0 then redis.call('HSET', KEYS[1], unpack(fresh)) end
return 1
";

const BEGIN: &str = "
local all = 1
for i = 1, #ARGV, 3 do
  local stored = redis.call('HGET', KEYS[1], ARGV[i]) or string.rep('\\0', 32)
  local begun = stored:sub(17, 32)
  local from, to = ARGV[i + 1], ARGV[i + 2]
  if begun == from then redis.call('HSET', KEYS[1], ARGV[i], stored:sub(1, 16) .. to)
  elseif begun ~= to then all = 0
  end
end
return all
";

const TURN: &str = "
local token, milliseconds = ARGV[1], ARGV[2]
local holder = redis.call('GET', KEYS[1])
if holder and holder ~= token then return 0 end
if milliseconds == '0' then redis.call('DEL', KEYS[1])
else redis.call('SET', KEYS[1], token, 'PX', milliseconds) end
return 1
";
