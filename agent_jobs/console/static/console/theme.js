// Light or dark, before the first paint: the last choice, else the system's. Also tells the server the time zone.
(function () {
  "use strict";
  var root = document.documentElement, kept = null;
  try { kept = localStorage.getItem("theme"); } catch (error) { /* a private window: the system decides */ }
  root.dataset.theme = (kept || (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light")) === "dark" ? "dark" : "light";
  var zone = Intl.DateTimeFormat().resolvedOptions().timeZone || "UTC";
  document.cookie = "zone=" + encodeURIComponent(zone).replace(/%2F/g, "/") + ";path=/console/;max-age=31536000;samesite=lax";
  document.addEventListener("click", function (event) {
    if (!event.target.closest("[data-theme-switch]")) { return; }
    root.dataset.theme = root.dataset.theme === "dark" ? "light" : "dark";
    try { localStorage.setItem("theme", root.dataset.theme); } catch (error) { /* as above */ }
  });
})();
