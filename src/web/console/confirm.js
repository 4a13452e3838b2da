// Asking before something cannot be taken back.
import { $ } from "./elements.js";

/** True when it is confirmed; Escape and Cancel say no. */
export function confirm(title, text, action) {
  const dialog = $("confirm");
  $("confirm-title").textContent = title;
  $("confirm-text").textContent = text;
  $("confirm-yes").textContent = action;
  return new Promise((resolve) => {
    const answer = (given) => {
      $("confirm-yes").onclick = $("confirm-no").onclick = dialog.onclose = null;
      dialog.close();
      resolve(given);
    };
    $("confirm-yes").onclick = () => answer(true);
    $("confirm-no").onclick = dialog.onclose = () => answer(false);
    dialog.showModal();
    $("confirm-no").focus();
  });
}
