-- Asks holdfast about a request: `http-request lua.holdfast /auth`. Only a 200 passes; whatever else happens, the client
-- gets an answer here, and the request goes no further.
--
-- It uses HAProxy's own HTTP client (core.httpclient, HAProxy 2.5 or later) and nothing else.

local ADDRESS = "http://127.0.0.1:4180"

-- What the backend is told. haproxy.cfg has removed what the client sent under these names.
local IDENTITY = {
    "x-user-email", "x-user-email-encoding", "x-user-id", "x-auth-tier", "x-auth-age", "x-auth-source",
}

-- What the client is told if it may not pass.
local ANSWER = { "www-authenticate", "retry-after", "cache-control" }

-- Longer than the 3 s that holdfast waits if it has to ask the issuer. HAProxy's client tries four times.
local TIMEOUT_MS = 4000
-- How long a client is told to wait when holdfast itself has not said.
local WAIT_S = "5"

local function refuse(txn, status, headers)
    local reply = txn:reply({ status = status })
    for name, value in pairs(headers) do
        reply:add_header(name, value)
    end
    txn:done(reply)
end

local function ask(txn, target)
    -- holdfast decides by the credential alone, so that is all it gets. Two are sent as two, and refused. Add `cookie` if
    -- `[credential] cookie` is set.
    local headers = { host = { "holdfast" } }
    local credentials = txn.http:req_get_headers()["authorization"]
    if credentials then
        headers.authorization = {}
        for index = 0, #credentials do
            headers.authorization[index + 1] = credentials[index]
        end
    end
    return core.httpclient():get({ url = ADDRESS .. target, headers = headers, timeout = TIMEOUT_MS })
end

core.register_action("holdfast", { "http-req" }, function(txn, target)
    local answered, response = pcall(ask, txn, target)
    local status = answered and response and response.status
    if status == 200 then
        for _, name in ipairs(IDENTITY) do
            txn.http:req_del_header(name)
            local values = response.headers[name]
            if values then
                txn.http:req_add_header(name, values[0])
            end
        end
        txn:set_var("txn.holdfast", "pass")
    elseif status == 401 or status == 403 or status == 503 then
        local headers = {}
        for _, name in ipairs(ANSWER) do
            local values = response.headers[name]
            headers[name] = values and values[0]
        end
        if status == 503 and not headers["retry-after"] then
            headers["retry-after"] = WAIT_S -- HAProxy's client says 503 if nobody listens
        end
        refuse(txn, status, headers)
    else
        -- holdfast is gone or too slow, or said what it never says.
        refuse(txn, 503, { ["retry-after"] = WAIT_S })
    end
end, 1)
