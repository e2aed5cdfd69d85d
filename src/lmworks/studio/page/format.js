// Numbers as people read them, the same as lmworks/base/figures.py writes them in reports.

export const UNKNOWN = "–";

const isNumber = (value) => typeof value === "number" && Number.isFinite(value);

// So many significant digits, written out: 1234.5 -> 1,230; 0.01234 -> 0.0123. Whole numbers stay whole.
export function number(value, digits = 3) {
  if (!isNumber(value)) return UNKNOWN;
  if (Number.isInteger(value) && Math.abs(value) < 1e6) return value.toLocaleString("en");
  const places = digits - 1 - Math.floor(Math.log10(Math.abs(value)));
  if (places > 9 || places < -12) return value.toExponential(digits - 1);
  const rounded = Number(value.toPrecision(digits));
  const kept = Math.max(places, 0);
  return rounded.toLocaleString("en", { minimumFractionDigits: kept, maximumFractionDigits: kept });
}

// 0.0123 -> 1.23 %
export const percent = (share, digits = 3) => (isNumber(share) ? `${number(100 * share, digits)} %` : UNKNOWN);

export function bytes(value) {
  if (!isNumber(value)) return UNKNOWN;
  const units = ["B", "kB", "MB", "GB", "TB"];
  let size = value, unit = 0;
  while (size >= 999.95 && unit < units.length - 1) { size /= 1000; unit += 1; }
  return `${number(size)} ${units[unit]}`;
}

// 8.2 s, 3 min 05 s, 2 h 04 min
export function seconds(value) {
  if (!isNumber(value)) return UNKNOWN;
  const two = (part) => String(part).padStart(2, "0");
  if (value < 1) return `${Math.round(value * 1000)} ms`;
  if (value < 100) return `${number(value, value < 10 ? 2 : 3)} s`;
  const whole = Math.round(value);
  if (value < 3600) return `${Math.floor(whole / 60)} min ${two(whole % 60)} s`;
  const minutes = Math.round(value / 60);
  return `${Math.floor(minutes / 60)} h ${two(minutes % 60)} min`;
}

// Seconds since 1970 as date and time where the person is: 2026-11-28 08:42
export function date(value) {
  if (!isNumber(value)) return UNKNOWN;
  const day = new Date(value * 1000), two = (part) => String(part).padStart(2, "0");
  const parts = [day.getFullYear(), two(day.getMonth() + 1), two(day.getDate())];
  return `${parts.join("-")} ${two(day.getHours())}:${two(day.getMinutes())}`;
}
