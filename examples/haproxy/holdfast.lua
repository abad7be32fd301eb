-- Asks holdfast about a request: `http-request lua.holdfast /auth`. Only a 200 passes; in every other case the
-- client gets an answer here, and the request goes no further.
--
-- It uses HAProxy's own HTTP client (core.httpclient, HAProxy 2.5 or later) and nothing else.
--
-- Lines marked `[with …]` are for those who use preflights (docs/routes.md), login (docs/login.md) or tokens that are bound to
-- their sender (docs/how-to/sender-constrained.md): take their `-- ` away.

-- [not with fleet]
local ADDRESS = "http://127.0.0.1:4180"

-- [with fleet] Several instances, by `listen holdfast` in haproxy.cfg.
-- local ADDRESS = "http://127.0.0.1:4179"

-- The headers that the backend gets. haproxy.cfg has removed what the client sent under these names.
local IDENTITY = {
    "x-user-email", "x-user-email-encoding", "x-user-id", "x-auth-tier", "x-auth-age", "x-auth-source",
}

-- holdfast decides by the credential alone, so it gets nothing else of the client. Add "cookie" if `[credential] cookie` is
-- set.
local ASK = {
    "authorization",
    -- [with preflight] The headers that make an OPTIONS request a CORS preflight.
    -- "origin", "access-control-request-method",
    -- [with sender] The proof of a token that is bound to its sender, and the client's certificate.
    -- "dpop", "x-client-cert",
    -- [with login] The cookie, and the headers that distinguish a browser that opens a page from a program.
    -- "cookie", "accept", "sec-fetch-mode", "sec-fetch-dest", "x-requested-with",
}

-- The headers that the client gets if it may not pass. The location is that of holdfast's login page, if there is one.
local ANSWER = { "www-authenticate", "retry-after", "cache-control", "location" }

-- Longer than the 5 s that holdfast waits if it has to ask the issuer (`budget.wait` and a call). HAProxy's
-- client tries four times.
local TIMEOUT_MS = 7000
-- The `Retry-After` when holdfast has not sent one.
local WAIT_S = "5"

local function refuse(txn, status, headers)
    local reply = txn:reply({ status = status })
    for name, value in pairs(headers) do
        reply:add_header(name, value)
    end
    txn:done(reply)
end

local function ask(txn, target)
    local sent = txn.http:req_get_headers()
    -- The original request, for rules, preflights and login. It is set here, whatever the client sends.
    local headers = {
        host = { "holdfast" },
        ["x-forwarded-method"] = { txn.f:method() },
        ["x-forwarded-uri"] = { txn.f:pathq() },
        -- [with sender]
        -- ["x-forwarded-proto"] = { txn.sf:ssl_fc() == "1" and "https" or "http" },
    }
    -- A header that is there twice is sent twice, and refused.
    local function tell(name, values)
        if values then
            headers[name] = {}
            for index = 0, #values do
                headers[name][index + 1] = values[index]
            end
        end
    end
    tell("x-forwarded-host", sent["host"])
    for _, name in ipairs(ASK) do
        tell(name, sent[name])
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
    elseif status == 302 or status == 401 or status == 403 or status == 503 then
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
        -- holdfast is down or too slow, or gave an answer that it never gives.
        refuse(txn, 503, { ["retry-after"] = WAIT_S })
    end
end, 1)
