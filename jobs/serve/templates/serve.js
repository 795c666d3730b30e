// The search page without reloads, with suggestions and keys. Without this script links and forms still work.
"use strict";
(() => {
  const page = document.getElementById("page"), lost = document.getElementById("lost");
  const at = id => document.getElementById(id);
  let asking = null, typing = null, wait = 0, chosen = -1, boxes = sessionStorage.getItem("boxes") !== "off";
  let shown = location.pathname + location.search;

  // a page in place of this one; where the server is gone this one stays
  async function show(href, push = true, top = 0) {
    asking?.abort();
    const mine = asking = new AbortController();
    page.setAttribute("aria-busy", "true");
    const pending = [...page.querySelectorAll(".photo img")].filter(img => !img.complete);
    for (const img of pending) {  // a browser has six connections to a server; photos may have taken all
      img.dataset.src = img.src;
      img.removeAttribute("src");
    }
    try {
      const answer = await fetch(href, {signal: mine.signal});
      const made = new DOMParser().parseFromString(await answer.text(), "text/html");
      const next = made.getElementById("page");
      if (!next) return location.assign(href);
      if (push) {
        history.replaceState({top: scrollY}, "");
        history.pushState({top: 0}, "", href);
      }
      const typed = document.activeElement === at("q");
      shown = location.pathname + location.search;
      document.title = made.title;
      at("said").textContent = [...next.querySelectorAll("h1, .results .notice")].map(it => it.textContent).join("; ");
      page.replaceChildren(...next.childNodes);
      lost.hidden = true;
      ready();
      if (typed && !at("main").querySelector(".around")) at("q").focus({preventScroll: true});
      else at("main").focus({preventScroll: true});
      scrollTo(0, top);
    } catch (error) {
      if (error.name === "AbortError") return;
      lost.hidden = false;
      for (const img of pending) img.src = img.dataset.src;
    } finally {
      if (asking === mine) page.removeAttribute("aria-busy");
    }
  }

  // what a page has that needs the script
  function ready() {
    if (at("boxes")) at("boxes").checked = boxes;
    for (const button of document.querySelectorAll(".copy")) button.hidden = false;
    const q = at("q");
    for (const [name, value] of Object.entries({role: "combobox", "aria-expanded": "false", "aria-controls": "names", "aria-autocomplete": "list"})) q.setAttribute(name, value);
    facets();
    for (const img of document.querySelectorAll(".photo img")) if (img.complete && !img.naturalWidth) why(img);
  }

  async function facets() {
    const aside = at("facets"), href = aside?.dataset.load;
    if (!href) return;
    try {
      const answer = await fetch(href, {signal: asking?.signal});
      if (answer.ok) aside.innerHTML = await answer.text();
    } catch (error) {
      if (error.name !== "AbortError") lost.hidden = false;
    }
  }

  // why there is no photo, in its place
  async function why(img) {
    if (!img.getAttribute("src")) return;
    const frame = img.closest(".photo"), text = document.createElement("span");
    text.className = "why";
    try {
      const answer = await fetch(img.src);
      if (answer.ok) return;
      text.textContent = await answer.text();
    } catch {
      text.textContent = "the server does not answer";
      lost.hidden = false;
    }
    frame.querySelector(".boxes")?.remove();
    img.replaceWith(text);
  }

  // suggestions
  function close() {
    const names = at("names");
    names.hidden = true;
    names.replaceChildren();
    chosen = -1;
    at("q").setAttribute("aria-expanded", "false");
    at("q").removeAttribute("aria-activedescendant");
  }

  async function suggest() {
    typing?.abort();
    const mine = typing = new AbortController(), q = at("q");
    const end = q.selectionStart, run = new URLSearchParams(location.search).get("run") || "";
    try {
      const values = new URLSearchParams({run, q: q.value.slice(0, end)});
      const answer = await fetch(`/api/suggest?${values}`, {signal: mine.signal});
      const found = answer.ok ? await answer.json() : [];
      if (document.activeElement !== q) return;
      close();
      found.forEach((one, number) => at("names").append(option(one, number, q.value.slice(end))));
      at("names").hidden = !found.length;
      q.setAttribute("aria-expanded", String(!!found.length));
    } catch (error) {
      if (error.name !== "AbortError") lost.hidden = false;
    }
  }

  function option(one, number, rest) {
    const item = document.createElement("li");
    item.id = `name-${number}`;
    item.setAttribute("role", "option");
    item.setAttribute("aria-selected", "false");
    for (const [kind, text] of [["name", one.name], ["of", one.kind], ["number", one.images?.toLocaleString("en") ?? ""]]) {
      const part = document.createElement("span");
      part.className = kind;
      part.textContent = text;
      item.append(part, " ");
    }
    item.addEventListener("mousedown", event => {
      event.preventDefault();
      take(item);
    });
    item.dataset.query = one.query;
    item.dataset.rest = rest;
    return item;
  }

  function choose(step) {
    const items = [...at("names").children];
    if (!items.length) return false;
    items[chosen]?.setAttribute("aria-selected", "false");
    chosen = (chosen + step + items.length + (chosen < 0 && step < 0 ? 1 : 0)) % items.length;
    items[chosen].setAttribute("aria-selected", "true");
    items[chosen].scrollIntoView({block: "nearest"});
    at("q").setAttribute("aria-activedescendant", items[chosen].id);
    return true;
  }

  function take(item) {
    const q = at("q"), {query, rest} = item.dataset;
    q.value = query + (rest || " ");
    q.setSelectionRange(query.length + 1, query.length + 1);
    close();
  }

  // keys
  function inQuery(event) {
    if (event.key === "ArrowDown" || event.key === "ArrowUp") {
      if (choose(event.key === "ArrowDown" ? 1 : -1) || event.key === "ArrowUp") return event.preventDefault();
      // what was typed would be lost by Enter on an image
      if (at("q").value === at("q").defaultValue) document.querySelector(".card a")?.focus();
      event.preventDefault();
    } else if (event.key === "Enter" && chosen >= 0) {
      take(at("names").children[chosen]);
      event.preventDefault();
    } else if (event.key === "Escape") {
      if (at("names").hidden) at("q").blur();
      close();
      event.preventDefault();
    }
  }

  function among(event) {
    const all = [...document.querySelectorAll(".card a")], here = all.indexOf(document.activeElement);
    if (here < 0) {
      const first = event.key === "ArrowRight" || event.key === "ArrowDown" ? all[0] : null;
      if (!first || document.activeElement.closest("a, select, input, [tabindex='0']")) return;
      first.focus();
      return event.preventDefault();
    }
    const across = all.filter(one => one.offsetTop === all[0].offsetTop).length;
    const step = {ArrowLeft: -1, ArrowRight: 1, ArrowUp: -across, ArrowDown: across}[event.key];
    if (here + step < 0 && event.key === "ArrowUp") at("q").focus();
    all[here + step]?.focus();
    event.preventDefault();
  }

  document.addEventListener("keydown", event => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.isComposing) return;
    const active = document.activeElement;
    if (active === at("q")) return inQuery(event);
    if (active.matches("select, input:not([type=checkbox])")) return;
    if (event.key === "/") {
      at("q").focus();
      at("q").select();
      return event.preventDefault();
    }
    const way = {Escape: "[data-up]", ArrowLeft: ".around [rel=prev]", ArrowRight: ".around [rel=next]"}[event.key];
    const link = way && document.querySelector(way);
    if (link) {
      event.preventDefault();
      return link.click();
    }
    if (event.key.startsWith("Arrow")) among(event);
  });

  document.addEventListener("click", event => {
    const copy = event.target.closest(".copy"), link = event.target.closest("a[href]");
    if (copy) return copied(copy);
    if (!link || event.button || event.ctrlKey || event.metaKey || event.shiftKey || event.altKey) return;
    if (link.origin !== location.origin || "plain" in link.dataset || link.getAttribute("href").startsWith("#")) return;
    event.preventDefault();
    show(link.href);
  });

  async function copied(button) {
    const code = at(button.dataset.copy);
    try {
      await navigator.clipboard.writeText(code.textContent);
      button.textContent = "Copied";
    } catch {
      getSelection().selectAllChildren(code);
      button.textContent = "Selected: copy it with the keyboard";
    }
  }

  document.addEventListener("submit", event => {
    event.preventDefault();
    clearTimeout(wait);
    typing?.abort();
    close();
    const values = [...new FormData(event.target)].filter(([, value]) => value);
    show(`/?${new URLSearchParams(values)}`);
  });
  document.addEventListener("input", event => {
    if (event.target !== at("q")) return;
    clearTimeout(wait);
    wait = setTimeout(suggest, 120);
  });
  document.addEventListener("focusout", event => event.target === at("q") && close());
  document.addEventListener("change", event => {
    if (event.target.id === "sort") event.target.form.requestSubmit();
    if (event.target.id === "boxes") sessionStorage.setItem("boxes", (boxes = event.target.checked) ? "on" : "off");
  });
  document.addEventListener("error", event => event.target.matches?.(".photo img") && why(event.target), true);
  addEventListener("popstate", event => {  // a place on the same page is none of ours
    if (shown !== location.pathname + location.search) show(location.href, false, event.state?.top || 0);
  });
  history.scrollRestoration = "manual";
  ready();
})();
