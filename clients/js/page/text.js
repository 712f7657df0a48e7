// What the page says: text for eyes, and announcements for screen readers.

const announcer = document.getElementById("announcer");
let announcements = [];

/** Has screen readers say it, together with what else happens within half a second. */
export function announce(text) {
  announcements.push(text);
  if (announcements.length > 1) return;
  announcer.textContent = "";
  setTimeout(() => {
    const [most, rest] = [announcements.slice(0, 3), announcements.length - 3];
    announcer.textContent = most.join(" ") + (rest > 0 ? ` And ${rest} more.` : "");
    announcements = [];
  }, 500);
}

/** Leaves the element alone if the text is the same, so that selections and screen readers are not disturbed. */
export function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

export function extension(name) {
  const match = name.match(/\.([^.]{1,4})$/);
  return match ? match[1].toUpperCase() : "";
}

export function bytes(number) {
  const units = ["B", "kB", "MB", "GB", "TB"];
  let unit = 0;
  while (number >= 999.5 && unit < units.length - 1) {
    number /= 1000;
    unit += 1;
  }
  return `${number.toFixed(unit > 0 && number < 99.5 ? 1 : 0)} ${units[unit]}`;
}

export function duration(seconds) {
  if (seconds < 60) return `${Math.max(1, Math.round(seconds))} s`;
  const minutes = Math.round(seconds / 60);
  return minutes < 60 ? `${minutes} min` : `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}
