-- closeseq in Wireshark: the comments that `closeseq analyze -f pcapng` writes, as fields.
--
-- `closeseq wireshark --install` copies this file into the personal plugin folder. It reads comments such as
--
--   closeseq: #3 client LAST_ACK -> CLOSED (assumed); server TIME_WAIT; problem final-ack-lost (client, proved)
--
-- and changes nothing. Comments come from a capture, which may be anybody's: whatever does not have this form
-- gives no field.

local closeseq = Proto("closeseq", "closeseq: TCP close sequence")

local fields = {
  connection = ProtoField.uint32("closeseq.connection", "Connection"),
  transition = ProtoField.string("closeseq.transition", "Transition"),
  finding = ProtoField.string("closeseq.finding", "Finding"),
  severity = ProtoField.string("closeseq.severity", "Severity"),
  certainty = ProtoField.string("closeseq.certainty", "Certainty of the finding"),
  endpoint = ProtoField.string("closeseq.endpoint", "Endpoint it is about"),
  note = ProtoField.string("closeseq.note", "Note"),
}
for _, endpoint in ipairs({ "client", "server" }) do
  local name = endpoint:gsub("^%l", string.upper)
  fields[endpoint .. ".state"] = ProtoField.string("closeseq." .. endpoint .. ".state", name .. " state")
  fields[endpoint .. ".certainty"] =
    ProtoField.string("closeseq." .. endpoint .. ".certainty", name .. " state's certainty")
end
closeseq.fields = fields

local comment = Field.new("frame.comment")

-- Adds an endpoint's state: "TIME_WAIT", or "FIN_WAIT_2 -> TIME_WAIT (proved)", of several steps the last one.
local function add_endpoint(tree, endpoint, text)
  local before = text:match("^[%u%d_]+")
  if not before then
    return
  end
  local state, certainty = before, nil
  for after, how in text:gmatch("%-> ([%u%d_]+) %((%l+)%)") do
    tree:add(fields.transition, string.format("%s %s -> %s", endpoint, state, after)):set_generated()
    state, certainty = after, how
  end
  tree:add(fields[endpoint .. ".state"], state):set_generated()
  if certainty then
    tree:add(fields[endpoint .. ".certainty"], certainty):set_generated()
  end
end

-- Adds a finding: "final-ack-lost (client, proved)", or without an endpoint "capture-incomplete (observed)".
local function add_finding(tree, severity, text)
  local code, about = text:match("^([%l%d-]+) %(([%l, ]+)%)$")
  if not code then
    return
  end
  local endpoint, certainty = about:match("^(%l+), (%l+)$")
  if not endpoint and about:find(",", 1, true) then
    return
  end
  local below = tree:add(fields.finding, code)
  below:set_generated()
  below:add(fields.severity, severity):set_generated()
  below:add(fields.certainty, certainty or about):set_generated()
  if endpoint then
    below:add(fields.endpoint, endpoint):set_generated()
  end
end

local function add_comment(tree, text)
  local connection, rest = text:match("^closeseq: #(%d+) (.*)$")
  if not connection or #connection > 9 then
    return
  end
  local branch = tree:add(closeseq)
  branch:set_text("closeseq: connection " .. connection)
  branch:set_generated()
  branch:add(fields.connection, tonumber(connection)):set_generated()
  local before, note = rest:match("^(.-); note: (.*)$")
  for part in (before or rest):gmatch("[^;]+") do
    local word, said = part:match("^ *(%l+) (.*)$")
    if word == "client" or word == "server" then
      add_endpoint(branch, word, said)
    elseif word == "problem" or word == "notice" then
      add_finding(branch, word, said)
    end
  end
  if note then
    branch:add(fields.note, note):set_generated()
  end
end

function closeseq.dissector(_, _, tree)
  for _, one in ipairs({ comment() }) do
    add_comment(tree, one.value or "")
  end
end

register_postdissector(closeseq)
