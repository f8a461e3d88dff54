// What makes the pages quick: keys, selection, live rows, dialogs, toasts. Every page can be read without it.
(function () {
  "use strict";
  var $ = function (selector, root) { return (root || document).querySelector(selector); };
  var $$ = function (selector, root) { return Array.from((root || document).querySelectorAll(selector)); };
  var keep = function (name, value) {
    try { if (value === undefined) { return localStorage.getItem(name); } localStorage.setItem(name, value); } catch (error) { /* a private window */ }
    return null;
  };
  var isTyping = function (target) { return target.closest("input:not([type=checkbox]), textarea, select, [contenteditable]") !== null; };

  // --- Saying things to screen readers: a summary, at most every 10 seconds ---
  var unsaid = "", saidAt = 0;
  function say(text) {
    unsaid = text;
    var wait = Math.max(0, saidAt + 10000 - Date.now());
    setTimeout(function () { if (unsaid) { $("#said").textContent = unsaid; unsaid = ""; saidAt = Date.now(); } }, wait);
  }

  // --- Toasts ---
  function passToasts() { $$("[data-passing]").forEach(function (toast) { delete toast.dataset.passing; toast.removeAttribute("data-passing"); setTimeout(function () { toast.remove(); }, 8000); }); }
  function toast(title, text) {
    var made = document.createElement("div"), words = document.createElement("div"), bold = document.createElement("b"), more = document.createElement("p");
    made.className = "toast"; made.setAttribute("role", "alert"); words.className = "grow"; bold.textContent = title; more.textContent = text || "";
    words.append(bold, more); made.append(words); $("#toasts").append(made);
    setTimeout(function () { made.remove(); }, 8000);
  }

  // --- Dialogs: a fragment in #dialog, opened as a modal one ---
  var opener = null;
  function openModal(dialog) {
    opener = document.activeElement;
    if (dialog.open) { dialog.removeAttribute("open"); }
    dialog.showModal();
  }
  function closeModal(dialog) {
    dialog.close();
    if (dialog.closest("#dialog")) { dialog.remove(); }
    if (opener && opener.isConnected) { opener.focus(); }
  }
  function showDialog(address) {
    fetch(address, { headers: { "HX-Request": "true" }, credentials: "same-origin" }).then(function (answer) {
      return answer.text().then(function (text) {
        if (!answer.ok && text.indexOf("<dialog") < 0) { $("#toasts").insertAdjacentHTML("beforeend", text); return; }
        $("#dialog").innerHTML = text;
        var dialog = $("#dialog dialog");
        if (dialog) { openModal(dialog); }
      });
    }).catch(function () { toast("The server does not answer", "Try again in a moment."); });
  }

  // --- A long bulk action: batch after batch, until it is over or somebody closes the dialog ---
  function runBatches(form) {
    var button = $("button[type=submit]", form);
    if (button) { button.disabled = true; }
    fetch(form.getAttribute("action"), { method: "POST", headers: { "HX-Request": "true" }, credentials: "same-origin", body: new URLSearchParams(new FormData(form)) }).then(function (answer) {
      if (answer.headers.get("HX-Redirect")) { location.href = answer.headers.get("HX-Redirect"); return null; }
      return answer.text().then(function (text) {
        if (!answer.ok) { $("#toasts").insertAdjacentHTML("beforeend", text); return; }
        if (!form.closest("dialog").matches(":modal")) { location.reload(); return; }
        $("#dialog").innerHTML = text;
        openModal($("#dialog dialog")); say($("#dialog h2").textContent);
        runBatches($("#dialog form"));
      });
    }).catch(function () { toast("The server does not answer", "What was done stays done. Look at the list, and go on."); if (button) { button.disabled = false; } });
  }

  // --- Swapping the list: the address changes, and only what depends on it ---
  var SWAPPED = ["#list", ".quick", ".filters", ".views", ".bulk"];
  function swap(address, push) {
    var card = $("#list");
    if (card) { card.setAttribute("aria-busy", "true"); }
    return fetch(address, { credentials: "same-origin", headers: { "X-Part": "list" } }).then(function (answer) {
      if (answer.redirected && answer.url.indexOf("?next=") > 0) { location.href = answer.url; return; }
      return answer.text().then(function (text) {
        var page = new DOMParser().parseFromString(text, "text/html");
        SWAPPED.forEach(function (selector) {
          var old = $(selector), fresh = $(selector, page);
          if (old && fresh) {
            if (old.contains(document.activeElement) && document.activeElement.id === "q") { keepTyping(old, fresh); }
            old.replaceWith(fresh);
          }
        });
        if (push) { history.pushState({ swapped: true }, "", address); }
        document.title = page.title;
        showSelection();
        var typed = $("[data-typed]");
        if (typed) { typed.removeAttribute("data-typed"); typed.focus(); typed.setSelectionRange(typed.value.length, typed.value.length); }
      });
    }).catch(function () {
      if (card) { card.removeAttribute("aria-busy"); }
      toast("The list could not be loaded", "Try again in a moment.");
    });
  }
  function keepTyping(old, fresh) {
    var field = $("#q", fresh), typed = $("#q", old);
    if (field && typed) { field.value = typed.value; field.setAttribute("data-typed", ""); }
  }
  function queryOf(form) {
    var query = new URLSearchParams();
    new FormData(form).forEach(function (value, name) { if (value) { query.append(name, value); } });
    var text = query.toString();
    return location.pathname + (text ? "?" + text : "");
  }

  // --- Selection: by id; it survives paging ---
  var KEY = "selected:" + location.pathname;
  var selected = new Map(), lastSelected = null, wholeFilter = false;
  try { selected = new Map(JSON.parse(sessionStorage.getItem(KEY) || "[]")); } catch (error) { selected = new Map(); }
  function keepSelection() { try { sessionStorage.setItem(KEY, JSON.stringify(Array.from(selected))); } catch (error) { /* not kept */ } }
  function pick(row, on) {
    if (on) { selected.set(row.dataset.job, { ended: "ended" in row.dataset, retry: "retry" in row.dataset }); } else { selected.delete(row.dataset.job); }
    wholeFilter = false;
  }
  function showSelection() {
    var bulk = $("[data-bulk]");
    $$("[data-job]").forEach(function (row) {
      var on = wholeFilter || selected.has(row.dataset.job), box = $("[data-select]", row);
      row.classList.toggle("sel", on);
      if (box) { box.checked = on; }
    });
    var all = $("[data-select-page]"), rows = $$("[data-job]");
    if (all) {
      var picked = rows.filter(function (row) { return selected.has(row.dataset.job); }).length;
      all.checked = wholeFilter || (rows.length > 0 && picked === rows.length);
      all.classList.toggle("mixed", !all.checked && picked > 0);
    }
    if (!bulk) { return; }
    var count = wholeFilter ? Number($("#list").dataset.total) : selected.size, ended = 0, retry = 0;
    selected.forEach(function (each) { ended += each.ended ? 1 : 0; retry += each.retry ? 1 : 0; });
    bulk.hidden = count === 0;
    var put = function (name, text) { $$("[" + name + "]", bulk).forEach(function (spot) { spot.textContent = text; }); };
    put("data-selected", count.toLocaleString("en"));
    put("data-selected-too", wholeFilter ? "all" : count);
    put("data-ended", !wholeFilter && ended ? "; " + ended + " of them have ended" : "");
    put("data-can-cancel", wholeFilter ? "" : count - ended);
    put("data-can-retry", wholeFilter ? "" : retry);
    $("[data-verb=cancel]", bulk).disabled = !wholeFilter && count - ended === 0;
    $("[data-verb=retry]", bulk).disabled = !wholeFilter && retry === 0;
    var form = $("[data-bulk-form]", bulk);
    form.elements.ids.value = wholeFilter ? "" : Array.from(selected.keys()).join(",");
    form.elements.scope.value = wholeFilter ? "filter" : "ids";
    var out = $("[data-export-selected]", bulk), plain = $("[data-export]");
    if (out && plain) {
      var to = new URL(plain.href), sort = to.searchParams.get("sort");
      if (!wholeFilter) { to.search = "?ids=" + form.elements.ids.value + (sort ? "&sort=" + sort : ""); }
      out.href = to.href;
    }
    keepSelection();
  }
  function selectNothing() { selected.clear(); wholeFilter = false; showSelection(); }

  // --- The current row ---
  var current = -1;
  function move(step) {
    var rows = $$("[data-job]");
    if (!rows.length) { return; }
    current = Math.max(0, Math.min(rows.length - 1, current + step));
    rows.forEach(function (row, place) { row.classList.toggle("cur", place === current); });
    rows[current].scrollIntoView({ block: "nearest" });
    var link = $("a.t", rows[current]);
    if (link) { link.focus({ preventScroll: true }); }
  }
  function here() { return $$("[data-job]")[current]; }

  // --- Live ---
  function liveState(isLive, text) {
    $$("[data-live-state]").forEach(function (spot) { spot.classList.toggle("is-old", !isLive); $("[data-live-word]", spot).textContent = text; });
  }
  function follow(address, handlers) {
    var source = null, stoppedAt = 0, timer = null, lastId = "";
    function open() {
      source = new EventSource(lastId ? address + "?last=" + lastId : address);
      source.onopen = function () { stoppedAt = 0; clearInterval(timer); liveState(true, "Live"); };
      source.onerror = function () {
        if (!stoppedAt) {
          stoppedAt = Date.now();
          timer = setInterval(function () { var s = Math.round((Date.now() - stoppedAt) / 1000); if (s >= 5) { liveState(false, "Live stopped " + s + " s ago"); } }, 1000);
        }
        if (source.readyState === EventSource.CLOSED) { setTimeout(open, 5000); }
      };
      Object.keys(handlers).forEach(function (kind) { source.addEventListener(kind, function (event) { lastId = event.lastEventId; handlers[kind](JSON.parse(event.data)); }); });
    }
    open();
    addEventListener("pagehide", function () { if (source) { source.close(); } });
  }
  var stale = new Set(), fresh = new Set(), pending = null;
  function onChanges(news) {
    var known = new Set($$("[data-job]").map(function (row) { return row.dataset.job; }));
    news.job_ids.forEach(function (id) { (known.has(id) ? stale : fresh).add(id); });
    if (!pending) { pending = setTimeout(refresh, 400); }
  }
  function rowsOf(ids) {
    var list = $("#list"), query = new URLSearchParams(location.search);
    query.delete("after"); query.delete("before"); query.set("ids", ids.join(","));
    return fetch(list.dataset.liveList + "?" + query, { credentials: "same-origin" }).then(function (answer) {
      if (!answer.ok) { throw new Error("rows"); }
      return answer.text();
    }).then(function (text) { return $$("[data-job]", new DOMParser().parseFromString(text, "text/html")); });
  }
  function refresh() {
    pending = null;
    var list = $("#list");
    if (!list || document.hidden) { if (stale.size + fresh.size) { pending = setTimeout(refresh, 2000); } return; }
    var ids = Array.from(stale).slice(0, 100), others = Array.from(fresh).slice(0, 100);
    stale.clear(); fresh = new Set();
    if (!ids.length && !others.length) { return; }
    rowsOf(ids.concat(others)).then(function (rows) {
      var changed = 0, added = 0;
      rows.forEach(function (row) {
        var old = document.getElementById(row.id);
        if (!old) { if (!row.classList.contains("is-out")) { added += 1; waiting.add(row.dataset.job); } return; }
        if (old.contains(document.activeElement)) { var cells = row.children, olds = old.children; for (var n = 1; n < cells.length; n += 1) { if (!olds[n].contains(document.activeElement)) { olds[n].innerHTML = cells[n].innerHTML; } } old.className = row.className; }
        else { old.replaceWith(document.importNode(row, true)); }
        changed += 1;
      });
      showSelection(); showFresh();
      if (changed || added) { say(changed + " jobs on show changed, " + waiting.size + " new"); }
    }).catch(function () { /* the next change tries again */ });
  }
  var waiting = new Set();
  function showFresh() {
    var chip = $("[data-fresh]");
    if (chip) { chip.hidden = waiting.size === 0; $("[data-fresh-count]", chip).textContent = waiting.size; }
  }

  // --- A live job: its parts are replaced in place; what somebody types or has open stays ---
  // Somebody else was quicker: the form says so and closes; what was typed stays to be read.
  function closeForm(part, other) {
    var closed = $("[data-closed]", other);
    if (!closed || $("[data-closed]", part)) { return; }
    $("form > *", part).before(document.importNode(closed, true));
    $$("button", part).forEach(function (button) { button.disabled = true; });
  }
  function refocus(part, held) {
    var found = held.id ? document.getElementById(held.id) : $$(held.tagName, part).find(function (each) { return each.getAttribute("href") === held.getAttribute("href") && each.textContent === held.textContent; });
    if (found) { found.focus({ preventScroll: true }); }
  }
  function refreshParts() {
    var from = $("[data-part-from]");
    return fetch(from ? from.dataset.partFrom : location.href, { credentials: "same-origin" }).then(function (answer) {
      if (!answer.ok) { throw new Error("parts"); }
      return answer.text();
    }).then(function (text) {
      var page = new DOMParser().parseFromString(text, "text/html");
      $$("[data-part]").forEach(function (part) {
        var other = $('[data-part="' + part.dataset.part + '"]', page);
        if (!other || other.innerHTML === part.innerHTML) { return; }
        if (part.contains(document.activeElement) && isTyping(document.activeElement)) { closeForm(part, other); return; }
        if ($$("input, textarea", part).some(function (field) { return field.type !== "hidden" && field.value !== field.defaultValue; })) { closeForm(part, other); return; }
        if ($("details.menu[open]", part)) { return; }
        var held = part.contains(document.activeElement) ? document.activeElement : null;
        var open = new Set($$("details[open][id]", part).map(function (each) { return each.id; }));
        part.innerHTML = other.innerHTML;
        open.forEach(function (id) { var each = document.getElementById(id); if (each) { each.open = true; } });
        if (held) { refocus(part, held); }
      });
    });
  }

  // --- Pointer ---
  document.addEventListener("click", function (event) {
    var target = event.target;
    var hit = function (selector) { return target.closest(selector); };
    var link = hit("a[data-swap]");
    if (link && !event.metaKey && !event.ctrlKey && !event.shiftKey && $("#list")) { event.preventDefault(); closeMenus(); waiting.clear(); swap(link.getAttribute("href").charAt(0) === "?" ? location.pathname + link.getAttribute("href") : link.href, true); return; }
    if (hit("[data-close]")) { hit(".toast").remove(); return; }
    var closer = hit("[data-close-dialog]");
    if (closer && closer.closest("dialog") && closer.closest("dialog").matches(":modal")) { event.preventDefault(); closeModal(closer.closest("dialog")); return; }
    if (target.matches("dialog:modal")) { closeModal(target); return; }
    var dialog = hit("a[data-dialog], button[data-dialog]");
    if (dialog) { event.preventDefault(); closeMenus(); showDialog(dialog.getAttribute("href") || dialog.dataset.dialog); return; }
    if (hit("[data-find]")) { openModal($("#finder")); $("#finder input").focus(); return; }
    if (hit("[data-keys]")) { openModal($("#keys")); return; }
    if (hit("[data-more]")) { var sheet = $("#more"); sheet.hidden = !sheet.hidden; hit("[data-more]").setAttribute("aria-expanded", String(!sheet.hidden)); return; }
    if (hit("[data-edit]")) { var menu = $("[data-filter-menu]"); menu.open = true; var field = $("[name='" + hit("[data-edit]").dataset.edit + "']:not([type=hidden])", menu); if (field) { field.focus(); } return; }
    if (hit("[data-fresh]")) { waiting.clear(); swap(location.pathname + location.search, false); return; }
    if (hit("[data-select-nothing]")) { selectNothing(); return; }
    if (hit("[data-select-all]")) { wholeFilter = true; showSelection(); return; }
    var copy = hit("[data-copy]");
    if (copy) { var source = copy.dataset.copyFrom ? $(copy.dataset.copyFrom).textContent : copy.dataset.copy; navigator.clipboard.writeText(source).then(function () { say("Copied"); copy.classList.add("is-done"); setTimeout(function () { copy.classList.remove("is-done"); }, 1500); }); return; }
    if (!hit("details.menu")) { closeMenus(); }
    var row = hit("[data-job]");
    if (row && !hit("a, input, button, label") && $("a.t", row)) { if (event.metaKey || event.ctrlKey) { open($("a.t", row).href, "_blank", "noopener"); } else if (!getSelection().toString()) { location.href = $("a.t", row).href; } }
  });
  function closeMenus() { $$("details.menu[open]").forEach(function (menu) { menu.open = false; }); }
  document.addEventListener("change", function (event) {
    var target = event.target;
    if (target.matches("[data-select]")) { var row = target.closest("[data-job]"); pick(row, target.checked); lastSelected = row.dataset.job; showSelection(); }
    if (target.matches("[data-select-page]")) { $$("[data-job]").forEach(function (each) { pick(each, target.checked); }); showSelection(); }
    if (target.matches("[data-keys-off]")) { keep("keys", target.checked ? "off" : "on"); }
    if (target.matches("select[data-goes]")) { location.href = target.value; }
  });
  document.addEventListener("submit", function (event) {
    var form = event.target;
    if (form.matches("[data-bulk-form]")) {
      event.preventDefault();
      var query = new URLSearchParams(new FormData(form)); query.set("verb", event.submitter.value);
      showDialog(form.getAttribute("action") + "?" + query);
    } else if (form.matches("[data-search], [data-filter-form]") && $("#list")) {
      event.preventDefault(); closeMenus(); waiting.clear(); swap(queryOf(form), true);
    } else if (form.matches("[data-batches]") && form.closest("dialog:modal")) {
      event.preventDefault(); selected.clear(); keepSelection(); runBatches(form);
    } else if (form.method === "post") {
      if (form.dataset.sent) { event.preventDefault(); return; }
      form.dataset.sent = "1";
      if (form.closest("[data-modal]") && form.action.indexOf("/jobs/bulk") > 0) { selected.clear(); keepSelection(); }
    }
  });
  var typing = null;
  document.addEventListener("input", function (event) {
    if (event.target.id === "q" && $("#list")) { clearTimeout(typing); typing = setTimeout(function () { waiting.clear(); swap(queryOf(event.target.form), true); }, 350); }
    if (event.target.closest("#finder")) { find(event.target.value); }
  });
  function find(text) {
    var first = null;
    $$(".finder-list li:not(.finder-jobs)").forEach(function (item) {
      var fits = item.textContent.toLowerCase().indexOf(text.toLowerCase()) >= 0;
      item.hidden = !fits; $("a", item).classList.remove("is-first");
      if (fits && text && !first) { first = $("a", item); first.classList.add("is-first"); }
    });
  }

  // --- Keys ---
  var went = 0;
  document.addEventListener("keydown", function (event) {
    if ((event.metaKey || event.ctrlKey) && event.key.toLowerCase() === "k") { event.preventDefault(); openModal($("#finder")); $("#finder input").focus(); return; }
    if (event.target.closest("#finder") && event.key === "Enter") { var first = $("#finder a.is-first"); if (first) { event.preventDefault(); location.href = first.href; } return; }
    if (keep("keys") === "off" || event.altKey || event.metaKey || event.ctrlKey || isTyping(event.target) || $("dialog:modal")) { return; }
    var key = event.key;
    if (Date.now() - went < 1500) { went = 0; var go = $('[data-go="' + key.toUpperCase() + '"]'); if (go) { event.preventDefault(); location.href = go.href; return; } }
    if (key === "g") { went = Date.now(); return; }
    if (key === "?") { event.preventDefault(); openModal($("#keys")); return; }
    if (key === "/" && $("#q")) { event.preventDefault(); $("#q").focus(); $("#q").select(); return; }
    if (key === "Escape") { closeMenus(); selectNothing(); return; }
    if ($("#rows")) {
      if (key === "j" || key === "k") { event.preventDefault(); move(key === "j" ? 1 : -1); return; }
      if ((key === "x" || key === "X") && here()) {
        event.preventDefault();
        var rows = $$("[data-job]"), from = rows.findIndex(function (row) { return row.dataset.job === lastSelected; });
        if (event.shiftKey && from >= 0) { rows.slice(Math.min(from, current), Math.max(from, current) + 1).forEach(function (row) { pick(row, true); }); }
        else { pick(here(), !selected.has(here().dataset.job)); lastSelected = here().dataset.job; }
        showSelection(); return;
      }
      if (key === "Enter" && here() && event.target === document.body) { location.href = $("a.t", here()).href; return; }
    }
    if ((key === "[" || key === "]") && job) { besides(key === "[" ? -1 : 1); return; }
    var press = { c: "[data-key-cancel]", r: "[data-key-retry]", a: "[data-key-approve]", d: "[data-key-deny]" }[key] || (/^[1-5]$/.test(key) ? '[data-tab="' + key + '"]' : "");
    var button = press && $(press);
    if (button) { event.preventDefault(); button.click(); }
  });
  function besides(step) {
    var kept = null, id = location.pathname.split("/").pop();
    try { kept = JSON.parse(sessionStorage.getItem("list") || "null"); } catch (error) { kept = null; }
    var next = kept && kept.ids[kept.ids.indexOf(id) + step];
    if (kept && kept.ids.indexOf(id) >= 0 && next) { location.href = location.pathname.replace(id, next); }
  }
  addEventListener("popstate", function () { if ($("#list")) { swap(location.href, false); } });
  addEventListener("pageshow", function (event) { if (event.persisted) { location.reload(); } });

  // A changed field of an approval is ringed, and says what the agent asked for.
  document.addEventListener("input", function (event) {
    var field = event.target;
    if (field.dataset.was === undefined) { return; }
    var is = field.value !== field.dataset.was, told = field.nextElementSibling;
    field.classList.toggle("changed", is);
    if (is && !(told && told.dataset.told)) { told = document.createElement("span"); told.className = "was"; told.dataset.told = "1"; field.after(told); }
    if (told && told.dataset.told) { if (is) { told.textContent = "It was " + (field.dataset.was || "empty") + "."; } else { told.remove(); } }
  });

  // The button of an approval says whether the arguments are the agent's own.
  function sayChanged(form) {
    var word = $("[data-approve-word]", form);
    if (word) { word.textContent = $$("[data-was]", form).some(function (field) { return field.value !== field.dataset.was; }) ? "Approve, changed" : "Approve"; }
  }
  document.addEventListener("input", function (event) { var form = event.target.closest("[data-approval]"); if (form) { sayChanged(form); } });
  document.addEventListener("reset", function (event) {
    setTimeout(function () { $$("[data-was]", event.target).forEach(function (field) { field.dispatchEvent(new Event("input", { bubbles: true })); }); }, 0);
  });

  // --- Start ---
  passToasts(); showSelection();
  var list = $("#list"), job = $("[data-job-changes]");
  if (list && list.dataset.changes) { follow(list.dataset.changes, { changes: onChanges }); }
  if (job) {
    var soon = null;
    follow(job.dataset.jobChanges, { changed: function () { if (!soon) { soon = setTimeout(function () { soon = null; refreshParts().then(function () { say("The job has changed"); }); }, 250); } } });
  }
  var parts = $("[data-part-changes]"), next = null;
  if (parts) { follow(parts.dataset.partChanges, { changes: function () { if (!next) { next = setTimeout(function () { next = null; if (!document.hidden) { refreshParts().then(function () { say("The page has changed"); }).catch(function () { /* the next change tries again */ }); } }, 1500); } } }); }
  $$("[data-every]").forEach(function (part) { setInterval(function () { if (!document.hidden) { refreshParts(); } }, 1000 * Number(part.dataset.every)); });
  if (keep("keys") === "off" && $("[data-keys-off]")) { $("[data-keys-off]").checked = true; }
  if ($("#rows")) { try { sessionStorage.setItem("list", JSON.stringify({ at: location.href, ids: $$("[data-job]").map(function (row) { return row.dataset.job; }) })); } catch (error) { /* not kept */ } }
})();
