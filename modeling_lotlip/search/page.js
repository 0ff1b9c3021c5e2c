// A click on a sentence under an image puts its heat map in the place of the image, another click the image back; a
// click on the image shows it large. `element`, `server` and `trigger` are Gradio's.
const GONE = {message: 'No answer came: is the page still being served?'};
const ask = async (question, about) => {
    try { return (await server[question](about)) ?? GONE; } catch (error) { return GONE; }
};
const show = (card, message, source) => {
    card.querySelector('.note').textContent = message;
    const image = card.querySelector('img');
    if (image) image.src = source || image.dataset.image;
};
// Images that are nearly the same as that of a card come when they are asked for.
const unfold = async (button) => {
    const place = button.parentElement.querySelector('.same');
    const isOpen = button.getAttribute('aria-expanded') === 'true';
    button.setAttribute('aria-expanded', String(!isOpen));
    place.hidden = isOpen;
    if (isOpen || place.innerHTML) return;
    const answer = await ask('copies', {names: JSON.parse(button.parentElement.dataset.copies)});
    if (answer.html) place.innerHTML = answer.html; else place.textContent = answer.message;
};
element.addEventListener('click', async (event) => {
    const button = event.target.closest('button'), card = event.target.closest('.card');
    if (button?.matches('.show-more')) { button.disabled = true; trigger('submit'); return; }
    if (event.target.closest('dialog')) event.target.closest('dialog').close();
    if (!button || !card) return;
    const image = card.querySelector('img'), name = card.dataset.name;
    if (image) image.dataset.image ||= image.src;
    if (button.matches('.similar')) {
        trigger('select', {name});
    } else if (button.matches('.unfold')) {
        await unfold(button);
    } else if (button.matches('.frame')) {
        if (!image) return;
        const answer = await ask('enlarge', {name}), dialog = element.querySelector('dialog');
        if (!answer.source) { show(card, answer.message); return; }
        dialog.querySelector('img').src = answer.source;
        dialog.querySelector('p').textContent = name;
        dialog.showModal();
    } else if (button.matches('.sentence')) {
        const pressed = button.getAttribute('aria-pressed') === 'true';
        for (const other of card.querySelectorAll('button.sentence')) other.setAttribute('aria-pressed', 'false');
        show(card, '');
        if (pressed) return;
        button.setAttribute('aria-pressed', 'true');
        show(card, 'Looking ...');
        const answer = await ask('heat_map', {name, sentence: button.querySelector('.text').textContent});
        if (button.getAttribute('aria-pressed') === 'true') show(card, answer.message, answer.source);
    }
});
