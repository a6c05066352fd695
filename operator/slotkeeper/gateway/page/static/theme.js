// Loaded before the page is painted, so that a chosen theme does not flash.
"use strict";
try {
  const theme = localStorage.getItem("slotkeeper.theme");
  if (theme === "light" || theme === "dark") document.documentElement.dataset.theme = theme;
} catch {
  // Storage is blocked: the theme is that of the system.
}
