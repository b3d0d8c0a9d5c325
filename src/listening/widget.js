// The page of the listening test. It knows numbers, texts and sounds; what to show next, and
// whether an answer counts, is the kernel's to decide (widget.py).

const make = (tag, properties = {}, ...children) => {
  const node = Object.assign(document.createElement(tag), properties);
  node.append(...children);
  return node;
};

const field = (name, label, attributes = {}) => {
  const input = make("input", { name, ...attributes });
  return make("label", { className: "lt-field" }, make("span", {}, label), input);
};

function sheet(page, send) {
  const form = make("form", { className: "lt-sheet" },
    make("h3", {}, "Listening test"),
    make("p", {}, "Your answers are stored under a pseudonym on this machine, with your languages, " +
      "hearing and device. Nothing is sent anywhere. You may stop at any time, come back under the " +
      "same pseudonym and go on where you stopped, or have your answers deleted."),
    field("listener", "Pseudonym (a-z, 0-9, hyphens; not your name)", { required: true, autocomplete: "off" }),
    field("languages", "Languages that you grew up with", { required: true }),
    field("hearing", "Hearing (as far as you know)", { required: true }),
    field("device", "Headphones or loudspeakers", { required: true }),
    make("label", { className: "lt-consent" },
      make("input", { type: "checkbox", name: "consent" }),
      " I have read this and take part of my own will."),
    make("button", { type: "submit" }, "Begin"));
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    const values = Object.fromEntries(new FormData(form));
    send({ type: "sheet", ...values, consent: form.elements.consent.checked });
  });
  return form;
}

// A player that only plays from start to end: no seeking, so that "heard" means heard whole.
function player(label, url, state, index, changed) {
  const audio = new Audio(url);
  const button = make("button", { type: "button", className: "lt-play", disabled: !url });
  const show = () => {
    const heard = state.plays[index] > 0 ? " ✓" : "";
    button.textContent = `${audio.paused ? "▶" : "…"} ${label}${heard}`;
    button.setAttribute("aria-label", `Play ${label}, heard ${state.plays[index]} times`);
    button.dataset.plays = state.plays[index];
  };
  button.addEventListener("click", () => {
    for (const other of state.audios) if (other !== audio) { other.pause(); other.currentTime = 0; }
    audio.currentTime = 0;
    audio.play();
    show();
  });
  audio.addEventListener("ended", () => { state.plays[index] += 1; show(); changed(); });
  audio.addEventListener("pause", show);
  state.audios.push(audio);
  state.buttons.push(button);
  show();
  return button;
}

function volume(page, send, urls, state) {
  state.plays = [0];
  const go = make("button", { type: "button", disabled: true }, "I hear it well");
  go.addEventListener("click", () => send({ type: "next" }));
  return make("div", {},
    make("h3", {}, page.resumed ? `Welcome back: ${page.resumed} answers are kept` : "Volume"),
    make("p", {}, "Put on your headphones, play the sample, set a comfortable volume and leave it " +
      "so: all clips are equally loud."),
    player("Sample", urls[0], state, 0, () => { go.disabled = false; }), go);
}

function item(page, send, urls, state) {
  state.plays = page.clips.map(() => 0);
  state.began = performance.now();
  const answers = make("fieldset", { className: "lt-answers", disabled: true },
    make("legend", {}, page.question));
  const submit = make("button", { type: "submit", disabled: true }, "Submit");
  page.criteria.forEach(([value, text], index) => {
    const input = make("input", { type: "radio", name: "answer", value });
    input.addEventListener("change", () => { submit.disabled = false; });
    answers.append(make("label", {}, input, ` ${text} `, make("kbd", {}, `${index + 1}`)));
  });
  const hint = make("p", { className: "lt-hint" }, "Listen to every clip to its end first.");
  const changed = () => {
    const heard = state.plays.every((count) => count > 0);
    answers.disabled = !heard;
    hint.hidden = heard;
  };
  const players = page.clips.map((label, index) => player(label, urls[index], state, index, changed));
  const form = make("form", { className: "lt-item" },
    make("p", { className: "lt-progress" },
      `${page.training ? "Training, not scored. " : ""}${page.position + 1} of ${page.total}`),
    make("section", { ariaLabel: "System Interface" }, make("p", {}, page.interface),
      ...(page.text ? [make("blockquote", {}, page.text)] : []), ...players),
    hint, answers, submit);
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    const picked = form.querySelector("input[name=answer]:checked");
    if (!picked || submit.disabled) return;
    submit.disabled = true;
    const seconds = (performance.now() - state.began) / 1000;
    send({ type: "answer", position: page.position, answer: picked.value, plays: state.plays, seconds });
  });
  if (page.feedback) {
    const next = make("button", { type: "button", className: "lt-next" }, "Next");
    next.addEventListener("click", () => send({ type: "next" }));
    return make("div", {}, make("p", { className: "lt-progress" }, "Training, not scored"),
      make("blockquote", {}, page.text || page.question),
      make("p", { className: page.right ? "lt-right" : "lt-wrong" },
        `${page.right ? "Right" : "Not quite"}: ${page.feedback}.`), next);
  }
  return form;
}

function rest(page, send) {
  const go = make("button", { type: "button" }, "Go on");
  go.addEventListener("click", () => send({ type: "next" }));
  return make("div", {}, make("h3", {}, "Time for a break"),
    make("p", {}, `${page.done} of ${page.total} are done and kept. Rest your ears for some minutes.`), go);
}

function done(page) {
  return make("div", {}, make("h3", {}, "Thank you"),
    make("p", {}, `All ${page.total} answers are kept. You can close this page.`));
}

const PAGES = { sheet, volume, item, break: rest, done };

function render({ model, el }) {
  const state = { audios: [], buttons: [], plays: [], began: 0 };
  const sound = { serial: -1, urls: [] };
  let drawn = "";
  const send = (message) => model.send(message);
  const root = make("div", { className: "lt-root", tabIndex: 0 });
  const draw = () => {
    const page = model.get("page");
    const { message, ...content } = page;
    const needed = page.kind === "volume" || (page.kind === "item" && !page.feedback);
    if (needed && sound.serial !== page.serial) return send({ type: "again" });
    // A refusal only says why: drawing anew would forget what was heard.
    if (JSON.stringify(content) !== drawn) {
      drawn = JSON.stringify(content);
      for (const audio of state.audios) audio.pause();
      state.audios = []; state.buttons = [];
      root.replaceChildren(PAGES[page.kind](page, send, sound.urls, state),
        make("p", { className: "lt-message", role: "alert" }));
      root.focus({ preventScroll: true });
    }
    root.querySelector(".lt-message").textContent = message;
    const submit = root.querySelector("button[type=submit]");
    if (message && submit) submit.disabled = false;
  };
  const heard = (content, buffers) => {
    sound.urls.forEach((url) => URL.revokeObjectURL(url));
    sound.urls = buffers.map((data) => URL.createObjectURL(new Blob([data], { type: "audio/wav" })));
    sound.serial = content.serial;
    if (model.get("page").serial === content.serial) { drawn = ""; draw(); }
  };
  // Keys: space plays the next clip that was not heard, 1 to 5 answer, Enter submits.
  root.addEventListener("keydown", (event) => {
    if (event.target.tagName === "INPUT" && event.target.type !== "radio") return;
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    event.stopPropagation(); // JupyterLab takes single keys for commands
    if (event.key === " " && event.target.tagName !== "BUTTON") {
      event.preventDefault();
      const next = state.plays.findIndex((count) => count === 0);
      state.buttons[next < 0 ? 0 : next]?.click();
    }
    const radios = root.querySelectorAll("fieldset:enabled input[type=radio]");
    if (/^[1-5]$/.test(event.key)) radios[Number(event.key) - 1]?.click();
    if (event.key === "Enter" && event.target.tagName !== "BUTTON") {
      event.preventDefault();
      root.querySelector("form")?.requestSubmit();
    }
  });
  model.on("msg:custom", heard);
  model.on("change:page", draw);
  el.append(root);
  draw();
  return () => {
    model.off("msg:custom", heard);
    model.off("change:page", draw);
    for (const audio of state.audios) audio.pause();
    sound.urls.forEach((url) => URL.revokeObjectURL(url));
  };
}

export default { render };
